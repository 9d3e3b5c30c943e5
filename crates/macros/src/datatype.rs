//! `#[derive(Datatype)]`: what is checked while compiling, and what is left to look at when bytes arrive.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Data, DataEnum, DataStruct, DeriveInput, Error, Fields, Ident, Member, Result};

/// The implementation for a struct or an enum.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let repr = Repr::of(&input.attrs)?;
    match &input.data {
        Data::Struct(data) => derive_struct(input, data, &repr),
        Data::Enum(data) => derive_enum(input, data, &repr),
        Data::Union(data) => Err(Error::new(
            data.union_token.span,
            "a union cannot be a Datatype: nobody can tell which of its bytes are initialised; \
             send an array of bytes, or a struct of its variants",
        )),
    }
}

/// What `#[repr(..)]` says.
#[derive(Default)]
struct Repr {
    /// `C` or `transparent`: the fields lie in the order they are written in.
    in_order: bool,
    /// `u8`, `i32` and so on.
    integer: Option<Ident>,
}

impl Repr {
    fn of(attributes: &[Attribute]) -> Result<Repr> {
        let mut repr = Repr::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("repr")) {
            attribute.parse_nested_meta(|meta| {
                let word = meta.path.require_ident()?;
                match word.to_string().as_str() {
                    "C" | "transparent" => repr.in_order = true,
                    "align" | "packed" if meta.input.peek(syn::token::Paren) => {
                        let content;
                        syn::parenthesized!(content in meta.input);
                        content.parse::<syn::LitInt>()?;
                    }
                    "align" | "packed" => {}
                    _ => repr.integer = Some(word.clone()),
                }
                Ok(())
            })?;
        }
        Ok(repr)
    }
}

fn derive_struct(input: &DeriveInput, data: &DataStruct, repr: &Repr) -> Result<TokenStream> {
    let name = &input.ident;
    if !repr.in_order {
        return Err(Error::new(
            name.span(),
            format!(
                "`{name}` needs #[repr(C)]: without it the compiler may lay it out differently in every program"
            ),
        ));
    }
    if let Some(lifetime) = input.generics.lifetimes().next() {
        return Err(Error::new(
            lifetime.span(),
            format!("`{name}` borrows: a reference means nothing in another process; send what it refers to"),
        ));
    }
    let types: Vec<_> = data.fields.iter().map(|field| &field.ty).collect();
    let members = members(&data.fields);
    let mut generics = input.generics.clone();
    for parameter in input.generics.type_params() {
        let parameter = &parameter.ident;
        generics.make_where_clause().predicates.push(syn::parse_quote!(#parameter: ::selvedge::Datatype));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let padded = format!(
        "`{name}` has padding, bytes without a value: put its fields in another order, largest alignment first, or add \
         a field in the place of the padding, such as `reserved: [u8; 4]`"
    );
    let plain = types.iter().map(|ty| quote_spanned!(ty.span()=> <#ty as ::selvedge::Datatype>::PLAIN));
    let valid = types.iter().zip(&members).map(|(ty, member)| {
        quote! {
            && <#ty as ::selvedge::Datatype>::is_valid({
                let start = ::core::mem::offset_of!(Self, #member);
                &bytes[start..start + ::core::mem::size_of::<#ty>()]
            })
        }
    });
    let check_now = input.generics.params.is_empty().then(|| {
        quote! { const _: bool = <#name as ::selvedge::Datatype>::PLAIN; }
    });
    Ok(quote! {
        // SAFETY: the fields lie in order, are `Datatype`s themselves, and evaluating `PLAIN` fails when there is
        // anything between or behind them.
        #[automatically_derived]
        unsafe impl #impl_generics ::selvedge::Datatype for #name #type_generics #where_clause {
            const PLAIN: bool = {
                ::core::assert!(
                    ::core::mem::size_of::<Self>() == 0 #(+ ::core::mem::size_of::<#types>())*,
                    #padded
                );
                true #(&& #plain)*
            };

            #[inline]
            #[allow(unused_variables, reason = "a struct without fields")]
            fn is_valid(bytes: &[u8]) -> bool {
                true #(#valid)*
            }

            #[allow(unused_variables, reason = "a struct without fields")]
            fn describe(signature: &mut ::selvedge::Signature) {
                #(signature.elements::<#types>(1);)*
            }
        }
        #check_now
    })
}

/// How each field is named in an expression.
fn members(fields: &Fields) -> Vec<Member> {
    fields.members().collect()
}

fn derive_enum(input: &DeriveInput, data: &DataEnum, repr: &Repr) -> Result<TokenStream> {
    let name = &input.ident;
    let Some(integer) = &repr.integer else {
        return Err(Error::new(
            name.span(),
            format!("`{name}` needs an integer as its representation, such as #[repr(u8)]"),
        ));
    };
    if let Some(variant) = data.variants.iter().find(|variant| !matches!(variant.fields, Fields::Unit)) {
        return Err(Error::new(
            variant.span(),
            "a variant with fields has bytes that other variants leave undefined; send the value with `send_value`",
        ));
    }
    if data.variants.is_empty() {
        return Err(Error::new(name.span(), format!("`{name}` has no values to send")));
    }
    let variants = data.variants.iter().map(|variant| &variant.ident);
    let names: Vec<_> = (0..data.variants.len()).map(|index| format_ident!("V{index}")).collect();
    Ok(quote! {
        // SAFETY: an enum without fields is laid out as the integer it is represented by, and its values are those of
        // its variants.
        #[automatically_derived]
        unsafe impl ::selvedge::Datatype for #name {
            const PLAIN: bool = false;

            #[inline]
            fn is_valid(bytes: &[u8]) -> bool {
                #(const #names: #integer = #name::#variants as #integer;)*
                let bytes = ::core::convert::TryInto::try_into(bytes).expect("the bytes of the integer");
                ::core::matches!(#integer::from_ne_bytes(bytes), #(#names)|*)
            }

            fn describe(signature: &mut ::selvedge::Signature) {
                signature.elements::<#integer>(1);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: &str) -> String {
        let item = syn::parse_str(item).expect("the test's own code");
        derive(&item).expect_err("this should be refused").to_string()
    }

    #[test]
    fn a_struct_the_compiler_may_reorder_is_told_what_it_needs() {
        assert!(refusal("struct A { x: u8 }").starts_with("`A` needs #[repr(C)]"));
        assert!(refusal("#[repr(align(8))] struct A(u8);").starts_with("`A` needs #[repr(C)]"));
    }

    #[test]
    fn a_struct_that_borrows_is_refused_at_the_lifetime() {
        assert!(refusal("#[repr(C)] struct A<'a> { x: &'a u8 }").starts_with("`A` borrows"));
    }

    #[test]
    fn a_union_is_refused() {
        assert!(refusal("#[repr(C)] union A { x: u8, y: i8 }").starts_with("a union cannot be a Datatype"));
    }

    #[test]
    fn an_enum_needs_an_integer_a_variant_and_no_fields() {
        assert!(refusal("enum A { X }").contains("such as #[repr(u8)]"));
        assert!(refusal("#[repr(C)] enum A { X }").contains("such as #[repr(u8)]"));
        assert!(refusal("#[repr(u8)] enum A { X(u8) }").starts_with("a variant with fields"));
        assert!(refusal("#[repr(u8)] enum A {}").contains("has no values"));
    }

    #[test]
    fn structs_in_order_and_enums_of_an_integer_are_accepted() {
        for item in [
            "#[repr(C)] struct A;",
            "#[repr(C)] #[derive(Debug)] struct A { x: u8, y: [bool; 4] }",
            "#[repr(transparent)] struct A<T>(T);",
            "#[repr(C, packed(2))] struct A<T: Copy, const N: usize>([T; N]) where T: Send;",
            "#[repr(i16)] enum A { X = -3, Y }",
        ] {
            let item = syn::parse_str(item).expect("the test's own code");
            assert!(derive(&item).is_ok());
        }
    }
}
