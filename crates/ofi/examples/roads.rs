//! Prints the roads to other hosts that this machine has, and why the others cannot be taken.
//!
//! `roads [libfabric] [interface]`: a file or folder, or `-` for the one that would be used; an interface by name or address.

use std::path::Path;

use selvedge_ofi::{Library, Provider, Settings, candidates, discover, environment};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let given = arguments.next().filter(|word| word != "-");
    let mut settings = Settings::default();
    settings.interface = arguments.next();
    for finding in environment::explain(std::env::vars(), &Provider::ALL) {
        println!("{:?}: {finding}", finding.severity);
    }
    for path in candidates(given.as_deref().map(Path::new)) {
        println!("there is {}", path.display());
    }
    let library = match Library::open(given.as_deref().map(Path::new)) {
        Ok(library) => library,
        Err(error) => return println!("{error}"),
    };
    println!("{library:?}");
    let found = discover(&library, &Provider::ALL, &settings);
    for choice in &found.usable {
        println!("{} ({})", choice.provider, choice.provider_name);
        for nic in &choice.nics {
            println!("  {nic:?}");
        }
        println!("  {:?}", choice.abilities);
        for note in &choice.notes {
            println!("  but {}; {}", note.reason, note.remedy);
        }
    }
    for refusal in &found.refused {
        println!("not {refusal}");
    }
}
