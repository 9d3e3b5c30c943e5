//! The house rules. Each test is one of them; `xtask/src/rules.rs` says how it is checked.

use std::sync::LazyLock;

use xtask::rules::House;

static HOUSE: LazyLock<House> = LazyLock::new(House::load);

#[track_caller]
fn nothing_breaks(rule: fn(&House) -> Vec<String>) {
    let broken = rule(&HOUSE);
    assert!(broken.is_empty(), "{} found:\n  {}", broken.len(), broken.join("\n  "));
}

#[test]
fn arrows_point_down_and_rooms_of_one_floor_have_no_doors() {
    nothing_breaks(House::arrows_that_do_not_point_down);
}

#[test]
fn pure_crates_forbid_unsafe_code() {
    nothing_breaks(House::pure_crates_that_allow_unsafe);
}

#[test]
fn unsafe_code_lives_in_the_files_the_architecture_page_names() {
    nothing_breaks(House::unsafe_outside_the_table);
}

#[test]
fn every_unsafe_site_carries_its_note() {
    nothing_breaks(House::unsafe_without_a_note);
}

#[test]
fn clock_environment_and_threads_enter_as_arguments() {
    nothing_breaks(House::clocks_and_threads_below);
}

#[test]
fn no_file_houses_two_things() {
    nothing_breaks(House::files_past_the_limit);
}

#[test]
fn every_dependency_has_its_reason() {
    nothing_breaks(House::dependencies_without_a_reason);
}

#[test]
fn the_contract_stays_small() {
    nothing_breaks(House::transport_past_its_limit);
}

#[test]
fn no_file_names_one_machine_or_one_registry() {
    nothing_breaks(House::paths_and_hosts_of_one_machine);
}

#[test]
fn every_command_a_page_shows_exists() {
    nothing_breaks(House::commands_that_do_not_exist);
}

#[test]
fn every_figure_says_how_to_repeat_it() {
    nothing_breaks(House::numbers_without_a_command);
}

#[test]
fn examples_beside_those_of_another_library_are_not_longer() {
    nothing_breaks(House::examples_longer_than_others);
}

#[test]
fn every_public_item_is_shown_in_a_running_example() {
    nothing_breaks(House::public_items_without_an_example);
}

#[test]
fn every_error_text_is_on_the_page_with_its_cause_and_remedy() {
    nothing_breaks(House::errors_without_a_remedy);
}

#[test]
fn every_call_stands_in_the_storm_or_its_page_says_where_else() {
    nothing_breaks(House::calls_that_no_storm_makes);
}
