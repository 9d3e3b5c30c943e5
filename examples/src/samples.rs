//! Samples to learn from: tables with numbers and, at the end of each line, the name of a class.

use std::fs;
use std::path::Path;

/// The table to learn from when there is no other: R. A. Fisher, The use of multiple measurements in taxonomic problems,
/// Annals of Eugenics 7 (1936), table I; 50 flowers each of three species of iris, measured in centimetres.
const IRISES: &str = include_str!("../data/iris.csv");

/// What was measured of one thing, and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Each with mean 0 and variance 1 over all samples; the last one is always 1.
    pub features: Vec<f64>,
    /// Place in [`Samples::classes`].
    pub class: usize,
}

/// A table of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Each with as many features.
    pub all: Vec<Sample>,
    /// Names, in order of their appearance.
    pub classes: Vec<String>,
}

impl Samples {
    /// Reads a CSV whose first line has the titles, or Fisher's irises.
    ///
    /// # Errors
    /// A sentence with the name of the file, and of the line.
    pub fn read(path: Option<&Path>) -> Result<Samples, String> {
        let Some(path) = path else {
            return Ok(Samples::parse(IRISES).expect("the irises are a table"));
        };
        let text =
            fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Samples::parse(&text).map_err(|(line, what)| format!("{}, line {line}: {what}", path.display()))
    }

    fn parse(text: &str) -> Result<Samples, (usize, &'static str)> {
        let mut samples = Samples::default();
        for (line, text) in (1..).zip(text.lines()).skip(1).filter(|(_, text)| !text.trim().is_empty()) {
            let mut words: Vec<&str> = text.split(',').map(str::trim).collect();
            let name = words.pop().unwrap_or_default();
            let features =
                words.iter().map(|word| word.parse()).chain([Ok(1.0)]).collect::<Result<Vec<f64>, _>>();
            let features = features.map_err(|_| (line, "not numbers and a name"))?;
            if samples.all.first().is_some_and(|first| first.features.len() != features.len()) {
                return Err((line, "not as many numbers as in the lines above"));
            }
            let known = samples.classes.iter().position(|class| class == name);
            let class = known.unwrap_or(samples.classes.len());
            if known.is_none() {
                samples.classes.push(name.to_owned());
            }
            samples.all.push(Sample { features, class });
        }
        if samples.all.is_empty() {
            return Err((1, "no samples follow"));
        }
        samples.standardise();
        Ok(samples)
    }

    fn standardise(&mut self) {
        let count = self.all.len() as f64;
        for feature in 0..self.all[0].features.len() - 1 {
            let mean = self.all.iter().map(|sample| sample.features[feature]).sum::<f64>() / count;
            let squares = self.all.iter().map(|sample| (sample.features[feature] - mean).powi(2));
            // What is the same everywhere says nothing, and stays 0.
            let deviation = (squares.sum::<f64>() / count).sqrt().max(f64::MIN_POSITIVE);
            self.all
                .iter_mut()
                .for_each(|sample| sample.features[feature] = (sample.features[feature] - mean) / deviation);
        }
    }
}
