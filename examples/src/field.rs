//! Fields of temperatures from 0 to 1, and pictures of them: in as brightness, out as glowing colours.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

/// The picture to begin with when there is no other: a piece of cloth with a selvedge above and below.
const CLOTH: &[u8] = include_bytes!("../data/cloth.png");

/// Temperatures row by row, each from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// Cells in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// All cells.
    pub cells: Vec<f64>,
}

impl Field {
    /// Reads the brightness of a PNG, or of the cloth.
    ///
    /// # Errors
    /// A sentence with the name of the file, when it is unreadable or no PNG.
    pub fn read(path: Option<&Path>) -> Result<Field, String> {
        let bytes = match path {
            None => CLOTH.to_vec(),
            Some(path) => {
                fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?
            }
        };
        let name = || path.map_or("the cloth".to_owned(), |path| path.display().to_string());
        let picture = image::load_from_memory_with_format(&bytes, ImageFormat::Png)
            .map_err(|error| format!("{} is not a picture: {error}", name()))?
            .into_luma8();
        Ok(Field {
            width: picture.width() as usize,
            height: picture.height() as usize,
            cells: picture.iter().map(|brightness| f64::from(*brightness) / 255.0).collect(),
        })
    }

    /// Writes a PNG in which the hottest cell is the brightest.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let hottest = self.cells.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let colour = |x, y| glow(self.cells[y as usize * self.width + x as usize] / hottest);
        let picture = RgbImage::from_fn(self.width as u32, self.height as u32, colour);
        let mut png = io::Cursor::new(Vec::new());
        picture.write_to(&mut png, ImageFormat::Png).map_err(io::Error::other)?;
        out.write_all(png.get_ref())
    }

    /// The field after `steps` steps, in each of which every cell makes up for `rate` of the difference to each of its
    /// neighbours. Plainly: without ranks, threads or strips. The oracle of `heat2d --check`.
    pub fn spread_alone(&self, steps: u64, rate: f64) -> Field {
        let (width, height) = (self.width, self.height);
        let mut now = self.cells.clone();
        for _ in 0..steps {
            let at = |x: usize, y: usize| now[y.min(height - 1) * width + x.min(width - 1)];
            let next = |place: usize| {
                let (x, y) = (place % width, place / width);
                let (left, right) = (at(x.saturating_sub(1), y), at(x + 1, y));
                let (above, below) = (at(x, y.saturating_sub(1)), at(x, y + 1));
                at(x, y) + rate * (above + below + (left + right) - 4.0 * at(x, y))
            };
            now = (0..now.len()).map(next).collect();
        }
        Field { width, height, cells: now }
    }

    /// Number of cells that are not the same to the last bit.
    pub fn differences(&self, other: &Field) -> usize {
        assert_eq!((self.width, self.height), (other.width, other.height), "fields of one shape");
        self.cells.iter().zip(&other.cells).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
    }
}

/// Black, violet, red, orange, yellow-white: the colour of a temperature from 0 to 1.
fn glow(temperature: f64) -> Rgb<u8> {
    const COLOURS: [[f64; 3]; 6] = [
        [2.0, 2.0, 10.0],
        [66.0, 10.0, 104.0],
        [147.0, 38.0, 103.0],
        [221.0, 81.0, 58.0],
        [252.0, 165.0, 10.0],
        [252.0, 255.0, 190.0],
    ];
    let place = temperature.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let (below, above) = (COLOURS[place as usize], COLOURS[place.ceil() as usize]);
    Rgb([0, 1, 2].map(|c| (below[c] + (above[c] - below[c]) * place.fract()).round() as u8))
}
