use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle};

use super::axis::Axis;
use crate::load::report::ReportError;

/// The picture's size on the page, pixels.
const WIDTH: u32 = 1_000;
const HEIGHT: u32 = 580;

/// Pixels drawn per pixel shown: the drawing library knows integer coordinates only. So it draws a
/// picture larger by this factor, and the page shows it smaller by the same factor. Otherwise lines
/// would go up in stairs.
const SCALE: u32 = 4;

/// A font that every system has.
const FONT: &str = "Inter, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif";
/// Approximate width of a character, by its height.
const CHARACTER_WIDTH: f64 = 0.56;
/// The library divides sizes by this before it writes them.
const FONT_SCALE: f64 = 1.24;

const MARGIN: i32 = 28;
const TITLE_SIZE: f64 = 19.0;
const SMALL_SIZE: f64 = 13.0;

pub(super) const INK: RGBColor = RGBColor(31, 41, 55);
pub(super) const FAINT: RGBColor = RGBColor(107, 114, 128);
const GRID: RGBColor = RGBColor(222, 226, 232);
const THIN_GRID: RGBColor = RGBColor(240, 242, 245);
pub(super) const ALARM: RGBColor = RGBColor(220, 38, 38);

/// Colours that most eyes can distinguish, also those that see fewer colours (after Okabe and Ito).
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 100, 190),
    RGBColor(213, 94, 0),
    RGBColor(0, 145, 105),
    RGBColor(185, 90, 150),
    RGBColor(120, 113, 108),
    RGBColor(190, 140, 0),
    RGBColor(60, 170, 220),
];

/// The colour of the line with this number.
pub(super) fn color(index: usize) -> RGBColor {
    PALETTE[index % PALETTE.len()]
}

/// Half way to white.
pub(super) fn paler(RGBColor(r, g, b): RGBColor) -> RGBColor {
    let half = |part: u8| u8::midpoint(part, 255);
    RGBColor(half(r), half(g), half(b))
}

/// The heading of a picture.
#[derive(Clone, Debug)]
pub struct Heading {
    /// The load in words.
    pub title: String,
    /// Where and when, in small letters.
    pub below: String,
}

/// A line's mark in the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Line,
    Dashes,
    Block,
    Dot,
}

/// One entry of the legend.
pub(super) struct Entry {
    pub mark: Mark,
    pub color: RGBColor,
    pub text: String,
}

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Coordinates = Cartesian2d<Axis, Axis>;
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Coordinates>;
pub(super) type Failed = Box<dyn std::error::Error>;

/// Pixels of the page as positions on the drawing.
pub(super) fn px(pixels: f64) -> i32 {
    (pixels * f64::from(SCALE)).round() as i32
}

/// The same for widths.
pub(super) fn width(pixels: f64) -> u32 {
    px(pixels).unsigned_abs()
}

/// Draws a picture: heading, legend, and in the remaining room what `body` draws.
pub(super) fn draw(
    picture: &'static str,
    heading: &Heading,
    legend: &[Entry],
    body: impl FnOnce(&Area<'_>) -> Result<(), Failed>,
) -> Result<String, ReportError> {
    let mut svg = String::new();
    let drawn = (|| {
        let size = (WIDTH * SCALE, HEIGHT * SCALE);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&plotters::style::WHITE)?;
        let mut y = f64::from(MARGIN) - 6.0;
        let room = f64::from(WIDTH as i32 - 2 * MARGIN);
        for line in wrapped(&heading.title, room / (TITLE_SIZE * CHARACTER_WIDTH)) {
            write(
                &root,
                (f64::from(MARGIN), y),
                &line,
                text(TITLE_SIZE, INK, true),
            )?;
            y += TITLE_SIZE * 1.3;
        }
        for line in wrapped(&heading.below, room / (SMALL_SIZE * CHARACTER_WIDTH)) {
            write(
                &root,
                (f64::from(MARGIN), y),
                &line,
                text(SMALL_SIZE, FAINT, false),
            )?;
            y += SMALL_SIZE * 1.4;
        }
        y += 8.0;
        y = draw_legend(&root, legend, y)?;
        let (_, rest) = root.split_vertically(px(y));
        body(&rest)?;
        root.present()?;
        Ok::<(), Failed>(())
    })();
    drawn.map_err(|error| ReportError::Picture {
        picture,
        what: error.to_string(),
    })?;
    // The library writes the drawing's size as the page's size.
    let drawn = format!(
        "<svg width=\"{}\" height=\"{}\"",
        WIDTH * SCALE,
        HEIGHT * SCALE
    );
    let shown = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\"");
    Ok(svg.replacen(&drawn, &shown, 1))
}

/// A chart that fills the area.
pub(super) fn chart<'a, 'b>(area: &'a Area<'b>, x: Axis, y: Axis) -> Result<Chart<'a, 'b>, Failed> {
    chart_beside(area, 84.0, x, y)
}

/// Like the function above, with this many pixels for the labels on the left.
pub(super) fn chart_beside<'a, 'b>(
    area: &'a Area<'b>,
    left: f64,
    x: Axis,
    y: Axis,
) -> Result<Chart<'a, 'b>, Failed> {
    let (x_name, y_name) = (x.name, y.name);
    let mut chart = ChartBuilder::on(area)
        .margin(width(8.0))
        .margin_right(width(f64::from(MARGIN)))
        .x_label_area_size(width(52.0))
        .y_label_area_size(width(left))
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .axis_style(FAINT.stroke_width(width(1.0)))
        .bold_line_style(GRID.stroke_width(width(1.0)))
        .light_line_style(THIN_GRID.stroke_width(width(0.75)))
        .x_desc(x_name)
        .y_desc(y_name)
        .label_style(text(SMALL_SIZE, INK, false))
        .axis_desc_style(text(SMALL_SIZE, FAINT, false))
        .set_all_tick_mark_size(width(4.0))
        .draw()?;
    Ok(chart)
}

/// Letters of this height in pixels.
pub(super) fn text(size: f64, color: RGBColor, is_bold: bool) -> TextStyle<'static> {
    let style = if is_bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let font = (FONT, size * FONT_SCALE * f64::from(SCALE)).into_font();
    TextStyle {
        color: color.to_backend_color(),
        ..TextStyle::from(font.style(style))
    }
}

/// Small letters beside a place, on this side of it.
pub(super) fn label(color: RGBColor, side: HPos) -> TextStyle<'static> {
    text(SMALL_SIZE, color, false).pos(Pos::new(side, VPos::Center))
}

/// Approximate width of small letters.
pub(super) fn small_text_width(text: &str) -> f64 {
    text.chars().count() as f64 * SMALL_SIZE * CHARACTER_WIDTH
}

fn write(
    area: &Area<'_>,
    (x, y): (f64, f64),
    line: &str,
    style: TextStyle<'static>,
) -> Result<(), Failed> {
    area.draw(&Text::new(line.to_owned(), (px(x), px(y)), style))?;
    Ok(())
}

/// Draws entries side by side, in as many rows as they need; returns where the last row ends.
fn draw_legend(root: &Area<'_>, legend: &[Entry], top: f64) -> Result<f64, Failed> {
    const ROW: f64 = 21.0;
    const MARK: f64 = 26.0;
    if legend.is_empty() {
        return Ok(top);
    }
    let (left, right) = (f64::from(MARGIN), f64::from(WIDTH as i32 - MARGIN));
    let (mut x, mut y) = (left, top + ROW / 2.0);
    for entry in legend {
        let length = MARK + 7.0 + small_text_width(&entry.text);
        if x > left && x + length > right {
            (x, y) = (left, y + ROW);
        }
        let line = |from: f64, to: f64, thick: f64, color: RGBColor| {
            PathElement::new(
                [(px(x + from), px(y)), (px(x + to), px(y))],
                color.stroke_width(width(thick)),
            )
        };
        match entry.mark {
            Mark::Line => root.draw(&line(0.0, MARK, 3.0, entry.color))?,
            Mark::Dashes => {
                for from in [0.0, 10.0, 20.0] {
                    root.draw(&line(from, from + 6.0, 3.0, entry.color))?;
                }
            }
            Mark::Block => root.draw(&line(4.0, MARK, 13.0, entry.color))?,
            Mark::Dot => root.draw(&plotters::element::Circle::new(
                (px(x + MARK / 2.0), px(y)),
                width(4.0),
                entry.color.filled(),
            ))?,
        }
        let style = text(SMALL_SIZE, INK, false).pos(Pos::new(HPos::Left, VPos::Center));
        write(root, (x + MARK + 7.0, y), &entry.text, style)?;
        x += length + 22.0;
    }
    Ok(y + ROW / 2.0 + 4.0)
}

/// Text in lines of at most `characters` characters, broken between words.
fn wrapped(text: &str, characters: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if ((line.chars().count() + word.chars().count()) as f64) < characters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
