//! `#[selvedge::test]`, a test that runs on several ranks under plain `cargo test`, and `#[derive(Datatype)]`. Use them
//! through the `selvedge` crate.

mod datatype;

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, ItemFn, LitInt, Token, bracketed, parse_macro_input};

/// `ranks = [1, 2, 3]`.
struct Arguments {
    ranks: Vec<LitInt>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Arguments> {
        let name: Ident = input.parse()?;
        if name != "ranks" {
            return Err(Error::new(name.span(), "expected `ranks = [1, 2, ..]`"));
        }
        input.parse::<Token![=]>()?;
        let list;
        bracketed!(list in input);
        let ranks: Vec<LitInt> =
            Punctuated::<LitInt, Token![,]>::parse_terminated(&list)?.into_iter().collect();
        if ranks.is_empty() {
            return Err(input.error("a test without rank counts never runs; name at least one"));
        }
        for count in &ranks {
            if count.base10_parse::<usize>()? == 0 {
                return Err(Error::new(count.span(), "a job has at least one rank"));
            }
        }
        Ok(Arguments { ranks })
    }
}

/// Runs a test once for each rank count, each as a test of its own named `ranks_N`. Ranks are threads; the function
/// gets its rank's `World` and is called once per rank.
///
/// ```text
/// #[selvedge::test(ranks = [1, 2, 3, 5])]
/// fn everybody_has_the_same_sum(world: selvedge::World) {
///     let mut sum = [0u32];
///     world.allreduce(&[1], &mut sum, &selvedge::Op::sum()).unwrap();
///     assert_eq!(sum[0] as usize, world.size());
/// }
/// ```
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let Arguments { ranks } = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    if function.sig.inputs.len() != 1 {
        let error =
            Error::new_spanned(&function.sig, "a multi-rank test takes one argument: world: selvedge::World");
        return error.to_compile_error().into();
    }
    let (name, attributes) = (&function.sig.ident, &function.attrs);
    let body = ItemFn { attrs: Vec::new(), ..function.clone() };
    let tests = ranks.iter().map(|count| {
        let test = format_ident!("ranks_{}", count.base10_digits());
        quote! {
            #[::core::prelude::v1::test]
            #(#attributes)*
            fn #test() {
                ::selvedge::local::run(#count, super::#name);
            }
        }
    });
    quote! {
        #[cfg(test)]
        #body
        #[cfg(test)]
        mod #name {
            #(#tests)*
        }
    }
    .into()
}

/// Makes a struct a `Datatype`, which messages are made of: `#[repr(C)]` (or `transparent`), every field a `Datatype`, no
/// padding. Generic structs are checked for padding where they are used. Also for enums without fields that have an
/// integer as their representation: bytes that are none of the variants are refused when they arrive.
///
/// ```text
/// #[derive(Clone, Copy, selvedge::Datatype)]
/// #[repr(C)]
/// struct Cell<T, const N: usize> {
///     values: [T; N],
///     name: u64,
/// }
/// ```
#[proc_macro_derive(Datatype)]
pub fn derive_datatype(item: TokenStream) -> TokenStream {
    let input = parse_macro_input!(item as syn::DeriveInput);
    datatype::derive(&input).unwrap_or_else(Error::into_compile_error).into()
}
