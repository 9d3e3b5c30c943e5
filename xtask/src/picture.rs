//! A picture in the terminal: two pixels to a character, in full colour.

use std::fmt::Write as _;
use std::path::Path;

use image::imageops::FilterType;

/// Characters per line.
const COLUMNS: u32 = 76;

/// The picture at `path` as lines of coloured characters; each is an upper half block, so that pixels are square.
///
/// # Errors
/// When it cannot be read, in a sentence.
pub fn for_terminal(path: &Path) -> Result<String, String> {
    let picture = image::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let lines = (COLUMNS * picture.height() / picture.width().max(1)).div_ceil(2).max(1);
    let small = picture.resize_exact(COLUMNS, 2 * lines, FilterType::Triangle).to_rgb8();
    let mut text = String::new();
    for y in 0..lines {
        for x in 0..COLUMNS {
            let [r, g, b] = small.get_pixel(x, 2 * y).0;
            let [r_below, g_below, b_below] = small.get_pixel(x, 2 * y + 1).0;
            let _ = write!(text, "\u{1b}[38;2;{r};{g};{b};48;2;{r_below};{g_below};{b_below}m\u{2580}");
        }
        text.push_str("\u{1b}[0m\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_twice_as_wide_as_high_fills_a_quarter_as_many_lines_as_columns() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/heat2d.png");
        let text = for_terminal(&path).expect("the picture of the README");
        assert_eq!(text.lines().count(), 19);
        assert_eq!(text.matches('\u{2580}').count(), 76 * 19);
    }

    #[test]
    fn a_picture_that_is_not_there_is_said_by_name() {
        let error = for_terminal(Path::new("no/such.png")).expect_err("there is none");
        assert!(error.starts_with("cannot read no/such.png"), "{error}");
    }
}
