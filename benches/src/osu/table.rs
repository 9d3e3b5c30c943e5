//! The results, as OSU's columns and as JSON.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::ser::{SerializeMap, Serializer};
use serde::{Serialize, ser};

use super::place::Place;
use super::stats::Tail;

/// Width of the first column (OSU: `%-10d`).
const SIZE_WIDTH: usize = 10;
/// Width of every other (OSU: FIELD_WIDTH, `%18.2f`).
const FIELD_WIDTH: usize = 18;

/// A column after the size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Above the column.
    pub(crate) title: &'static str,
    /// In the JSON.
    pub(crate) key: &'static str,
}

/// The columns that `--tail` adds.
pub(crate) const TAIL_COLUMNS: [Column; 4] = [
    Column { title: "P50(us)", key: "p50_us" },
    Column { title: "P99(us)", key: "p99_us" },
    Column { title: "P99.9(us)", key: "p999_us" },
    Column { title: "Max(us)", key: "max_us" },
];

impl Tail {
    /// The values of [`TAIL_COLUMNS`].
    pub(crate) fn values(self) -> [f64; 4] {
        [self.p50, self.p99, self.p999, self.max]
    }
}

/// The figures of one size.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Message size.
    pub(crate) bytes: usize,
    /// One per column.
    pub(crate) values: Vec<f64>,
    /// How often it was repeated.
    pub(crate) iterations: usize,
    /// Whether the data was right, where it was checked.
    pub(crate) valid: Option<bool>,
}

/// What is printed around the figures.
#[derive(Clone, Debug)]
pub(crate) struct Heading {
    /// As on the command line.
    pub(crate) bench: String,
    /// Comment lines before the column titles, without the `# `.
    pub(crate) notes: Vec<String>,
    /// What is in the rows.
    pub(crate) columns: Vec<Column>,
    /// False for a barrier, which has no size.
    pub(crate) sized: bool,
    /// Whether the iterations have a column (`-f`).
    pub(crate) iterations: bool,
    /// Whether the outcome of the check has a column (`-c`).
    pub(crate) validation: bool,
    /// Where the ranks ran.
    pub(crate) places: Vec<Place>,
}

/// Where results go: a table on standard output, JSON in a file, or JSON alone on standard output. Silent on every
/// rank but 0.
#[derive(Debug)]
pub(crate) struct Output {
    table: bool,
    json: Option<Json>,
}

#[derive(Debug)]
enum Json {
    Stdout,
    File(File),
}

impl Output {
    /// Nothing is printed.
    pub(crate) fn silent() -> Output {
        Output { table: false, json: None }
    }

    /// Opens `json` at once: hours of measuring are not lost to a misspelt folder.
    pub(crate) fn open(json: Option<&Path>) -> io::Result<Output> {
        Ok(match json {
            None => Output { table: true, json: None },
            Some(path) if path == Path::new("-") => Output { table: false, json: Some(Json::Stdout) },
            Some(path) => Output { table: true, json: Some(Json::File(File::create(path)?)) },
        })
    }

    /// Writes lines of the table, if there is one, and lets them be seen at once.
    pub(crate) fn print(&self, text: &str) -> io::Result<()> {
        if self.table {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    /// Writes `document` as one line of JSON, if that was asked for.
    pub(crate) fn finish(&mut self, document: &impl Serialize) -> io::Result<()> {
        let Some(json) = &mut self.json else { return Ok(()) };
        let mut text = serde_json::to_string(document).map_err(io::Error::other)?;
        text.push('\n');
        match json {
            Json::Stdout => io::stdout().lock().write_all(text.as_bytes()),
            Json::File(file) => file.write_all(text.as_bytes()),
        }
    }
}

/// A table being filled: its heading is out, rows are printed as they come, the JSON at the end.
#[derive(Debug)]
pub(crate) struct Table {
    output: Output,
    heading: Heading,
    rows: Vec<Row>,
    memory_kib: Option<u64>,
}

impl Table {
    /// Prints the heading.
    pub(crate) fn open(output: Output, heading: Heading) -> io::Result<Table> {
        output.print(&heading.text())?;
        Ok(Table { output, heading, rows: Vec::new(), memory_kib: None })
    }

    /// Prints and keeps a row.
    pub(crate) fn row(&mut self, row: Row) -> io::Result<()> {
        assert_eq!(row.values.len(), self.heading.columns.len(), "a figure for every column");
        self.output.print(&self.heading.row_text(&row))?;
        self.rows.push(row);
        Ok(())
    }

    /// Prints and keeps what the rank that holds most has taken.
    pub(crate) fn memory(&mut self, kib: u64) -> io::Result<()> {
        self.memory_kib = Some(kib);
        self.output.print(&format!("# memory of a rank: {:.1} MiB\n", kib as f64 / 1024.0))
    }

    /// Writes the JSON.
    pub(crate) fn close(mut self) -> io::Result<()> {
        let document = Document {
            bench: &self.heading.bench,
            ranks: self.heading.places.len(),
            rows: self.rows.iter().map(|row| JsonRow { heading: &self.heading, row }).collect(),
            memory_kib: self.memory_kib,
            places: &self.heading.places,
        };
        self.output.finish(&document)
    }
}

impl Heading {
    fn text(&self) -> String {
        let mut text = String::from("\n");
        for note in &self.notes {
            text += &format!("# {note}\n");
        }
        for place in &self.places {
            text += &format!("{}\n", place.line());
        }
        let mut titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        titles.extend(self.iterations.then_some("Iterations"));
        titles.extend(self.validation.then_some("Validation"));
        if self.sized {
            text += &format!("{:<SIZE_WIDTH$}", "# Size");
        }
        for (place, title) in titles.into_iter().enumerate() {
            // Without sizes the comment sign takes the first character of the first column.
            let (sign, width) =
                if !self.sized && place == 0 { ("#", FIELD_WIDTH - 1) } else { ("", FIELD_WIDTH) };
            text += &format!("{sign}{title:>width$}");
        }
        text + "\n"
    }

    fn row_text(&self, row: &Row) -> String {
        let mut text = if self.sized { format!("{:<SIZE_WIDTH$}", row.bytes) } else { String::new() };
        for value in &row.values {
            text += &format!("{value:>FIELD_WIDTH$.2}");
        }
        if self.iterations {
            text += &format!("{:>FIELD_WIDTH$}", row.iterations);
        }
        if self.validation {
            let outcome = match row.valid {
                Some(true) => "Pass",
                Some(false) => "Fail",
                None => "-",
            };
            text += &format!("{outcome:>FIELD_WIDTH$}");
        }
        text + "\n"
    }
}

#[derive(Serialize)]
struct Document<'a> {
    bench: &'a str,
    ranks: usize,
    rows: Vec<JsonRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<u64>,
    places: &'a [Place],
}

struct JsonRow<'a> {
    heading: &'a Heading,
    row: &'a Row,
}

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("bytes", &self.row.bytes)?;
        for (column, value) in self.heading.columns.iter().zip(&self.row.values) {
            map.serialize_entry(column.key, &rounded(*value))?;
        }
        map.serialize_entry("iterations", &self.row.iterations)?;
        if let Some(valid) = self.row.valid {
            map.serialize_entry("valid", &valid)?;
        }
        ser::SerializeMap::end(map)
    }
}

/// Four decimals: a tenth of a nanosecond is less than any clock tells.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading(sized: bool) -> Heading {
        Heading {
            bench: "latency".to_owned(),
            notes: vec!["Selvedge OSU-style Latency Test".to_owned()],
            columns: vec![Column { title: "Avg Latency(us)", key: "avg_us" }],
            sized,
            iterations: false,
            validation: true,
            places: Vec::new(),
        }
    }

    fn row(bytes: usize, value: f64) -> Row {
        Row { bytes, values: vec![value], iterations: 10, valid: Some(true) }
    }

    #[test]
    fn columns_are_aligned_as_those_of_osu() {
        let heading = heading(true);
        assert!(
            heading.text().ends_with("\n# Size       Avg Latency(us)        Validation\n"),
            "{}",
            heading.text()
        );
        assert_eq!(heading.row_text(&row(8, 0.314)), "8                       0.31              Pass\n");
    }

    #[test]
    fn a_barrier_has_no_size_column() {
        let heading = heading(false);
        assert!(heading.text().ends_with("\n#  Avg Latency(us)        Validation\n"), "{}", heading.text());
        assert_eq!(heading.row_text(&row(0, 1.0)), "              1.00              Pass\n");
    }

    #[test]
    fn a_json_row_starts_with_its_size_and_names_its_columns() {
        let heading = heading(true);
        let json = serde_json::to_string(&JsonRow { heading: &heading, row: &row(8, 0.30004) }).unwrap();
        assert_eq!(json, r#"{"bytes":8,"avg_us":0.3,"iterations":10,"valid":true}"#);
    }
}
