//! Sparse matrices: read from files of Matrix Market, and multiplied row by row.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// One element: row, column (both from 0) and value.
pub type Element = (usize, usize, f64);

/// Reads a square matrix from a file of Matrix Market (Boisvert, Pozo and Remington, The Matrix Market Exchange Formats,
/// NISTIR 5935, 1996): in coordinates, real or integer, general or symmetric. Returns how many rows it has, and its
/// elements, both halves of a symmetric one.
///
/// # Errors
/// A sentence with the name of the file and the line.
pub fn read(path: &Path) -> Result<(usize, Vec<Element>), String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse(&text).map_err(|(line, what)| format!("{}, line {line}: {what}", path.display()))
}

fn parse(text: &str) -> Result<(usize, Vec<Element>), (usize, &'static str)> {
    let banner = text.lines().next().unwrap_or_default().to_ascii_lowercase();
    let symmetric = match banner.split_whitespace().collect::<Vec<_>>()[..] {
        ["%%matrixmarket", "matrix", "coordinate", "real" | "integer", "general"] => false,
        ["%%matrixmarket", "matrix", "coordinate", "real" | "integer", "symmetric"] => true,
        ["%%matrixmarket", ..] => {
            return Err((1, "neither coordinate real general nor coordinate real symmetric"));
        }
        _ => return Err((1, "no file of Matrix Market, which begins with %%MatrixMarket")),
    };
    let mut lines =
        (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('%') && !line.trim().is_empty());
    let (line, sizes) = lines.next().ok_or((1, "no sizes follow"))?;
    let (rows, columns, count): (usize, usize, usize) = three(sizes).ok_or((line, "not three sizes"))?;
    if rows != columns {
        return Err((line, "the matrix is not square"));
    }
    let element = |(line, text)| match three::<f64>(text) {
        Some((row, column, value)) if (1..=rows).contains(&row) && (1..=rows).contains(&column) => {
            Ok((row - 1, column - 1, value))
        }
        Some(_) => Err((line, "outside of the matrix")),
        None => Err((line, "not a row, a column and a value")),
    };
    let mut elements = lines.map(element).collect::<Result<Vec<Element>, _>>()?;
    if elements.len() != count {
        return Err((line, "not as many elements follow as it says"));
    }
    if symmetric {
        let half = elements.len();
        elements.extend_from_within(..);
        elements[half..].iter_mut().for_each(|(row, column, _)| std::mem::swap(row, column));
        let mut place = 0;
        elements.retain(|(row, column, _)| (place < half || row != column, place += 1).0);
    }
    Ok((rows, elements))
}

fn three<T: FromStr>(line: &str) -> Option<(usize, usize, T)> {
    let mut words = line.split_whitespace();
    let three = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(three)
}

/// A sparse matrix, row after row.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Where in `elements` each row ends.
    ends: Vec<usize>,
    /// Column and value.
    elements: Vec<(usize, f64)>,
}

impl Rows {
    /// Of `count` rows, from elements in any order; those of one place add up.
    pub fn new(count: usize, mut elements: Vec<Element>) -> Rows {
        elements.sort_unstable_by_key(|&(row, column, _)| (row, column));
        let ends = (0..count).map(|row| elements.partition_point(|element| element.0 <= row)).collect();
        Rows { ends, elements: elements.into_iter().map(|(_, column, value)| (column, value)).collect() }
    }

    /// `y += self * x`.
    pub fn add_product(&self, x: &[f64], y: &mut [f64]) {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        for ((start, &end), y) in starts.zip(&self.ends).zip(y) {
            *y += self.elements[start..end].iter().map(|&(column, value)| value * x[column]).sum::<f64>();
        }
    }

    /// The elements whose row and column are the same.
    pub fn diagonal(&self) -> Vec<f64> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let row = |(row, (start, &end))| {
            self.elements[start..end]
                .iter()
                .filter(move |(column, _)| *column == row)
                .map(|(_, value)| value)
                .sum()
        };
        starts.zip(&self.ends).enumerate().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_a_symmetric_matrix_are_there() {
        let (rows, mut elements) =
            parse("%%MatrixMarket matrix coordinate real symmetric\n% a\n2 2 2\n1 1 2.5\n2 1 -1e0\n")
                .unwrap();
        elements.sort_by_key(|element| (element.0, element.1));
        assert_eq!((rows, elements), (2, vec![(0, 0, 2.5), (0, 1, -1.0), (1, 0, -1.0)]));
    }

    #[test]
    fn what_is_no_such_matrix_is_refused_with_its_line() {
        let general = "%%MatrixMarket matrix coordinate integer general\n";
        for (text, line) in [
            (String::new(), 1),
            ("%%MatrixMarket matrix array real general\n1 1\n1\n".to_owned(), 1),
            (format!("{general}2 3 0\n"), 2),
            (format!("{general}%\n2 2 1\n1 2\n"), 4),
            (format!("{general}2 2 1\n0 1 1\n"), 3),
            (format!("{general}2 2 1\n1 1 1 1\n"), 3),
            (format!("{general}2 2 2\n1 1 1\n"), 2),
            (format!("{general}1 1 18446744073709551615\n"), 2),
        ] {
            assert_eq!(parse(&text).map_err(|(line, _)| line), Err(line), "{text}");
        }
    }
}
