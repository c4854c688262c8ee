use plotters::element::{EmptyElement, PathElement, Rectangle, Text};
use plotters::style::Color;
use plotters::style::text_anchor::HPos;

use super::axis::{Axis, count_in_words, from_zero};
use super::canvas::{self, Entry, Heading, Mark};
use crate::load::report::{ReportError, Spread};

/// One bar: right answers a second of one contender in one result.
#[derive(Clone, Debug)]
pub struct RateBar {
    /// The result.
    pub result: String,
    /// The contender in it.
    pub contender: String,
    /// Right answers a second, over the slices.
    pub per_second: Spread,
}

/// Right answers a second beside each other: a bar to the median of the slices, a line from the
/// least to the most. Each contender has a colour.
///
/// # Errors
/// The picture cannot be drawn.
pub fn rates(heading: &Heading, bars: &[RateBar]) -> Result<String, ReportError> {
    let mut contenders: Vec<&str> = Vec::new();
    for bar in bars {
        if !contenders.contains(&bar.contender.as_str()) {
            contenders.push(&bar.contender);
        }
    }
    let color = |bar: &RateBar| {
        let index = contenders.iter().position(|name| *name == bar.contender);
        canvas::color(index.unwrap_or(0))
    };
    let legend: Vec<Entry> = (contenders.iter().enumerate())
        .map(|(index, name)| Entry {
            mark: Mark::Block,
            color: canvas::color(index),
            text: (*name).to_owned(),
        })
        .collect();
    // One place a bar, from the top down, and half a place between two results.
    let mut places = Vec::with_capacity(bars.len());
    let mut place = 0.0_f64;
    for (index, bar) in bars.iter().enumerate() {
        if index > 0 && bars[index - 1].result != bar.result {
            place += 0.6;
        }
        places.push(place);
        place += 1.0;
    }
    let most = bars
        .iter()
        .map(|bar| bar.per_second.most)
        .fold(0.0, f64::max);
    // Room for the number behind the longest bar.
    let x = from_zero(
        "right answers a second: median, least and most of the slices",
        most * 1.1,
        8,
        count_in_words,
    );
    let y = Axis {
        name: "",
        range: -place..0.0,
        labelled: vec![],
        thin: vec![],
        words: |_| String::new(),
        is_logarithmic: false,
    };
    let names = bars.iter().map(|bar| canvas::small_text_width(&bar.result));
    let left = 30.0 + names.fold(0.0, f64::max).min(420.0);
    canvas::draw("rates", heading, &legend, |area| {
        let mut chart = canvas::chart_beside(area, left, x, y)?;
        let mut named: Option<&String> = None;
        for (bar, place) in bars.iter().zip(places) {
            let color = color(bar);
            let (top, bottom, middle) = (-place - 0.08, -place - 0.92, -place - 0.5);
            let Spread {
                least,
                median,
                most,
            } = bar.per_second;
            chart.draw_series([Rectangle::new(
                [(0.0, bottom), (median, top)],
                color.mix(0.35).filled(),
            )])?;
            let style = color.stroke_width(canvas::width(2.0));
            chart.draw_series([PathElement::new([(least, middle), (most, middle)], style)])?;
            let ends = [least, most]
                .map(|end| PathElement::new([(end, middle - 0.15), (end, middle + 0.15)], style));
            chart.draw_series(ends)?;
            if named != Some(&bar.result) {
                let name = Text::new(
                    bar.result.clone(),
                    (canvas::px(-10.0), 0),
                    canvas::label(canvas::INK, HPos::Right),
                );
                chart.draw_series([EmptyElement::at((0.0, middle)) + name])?;
                named = Some(&bar.result);
            }
            let number = EmptyElement::at((most.max(median), middle))
                + Text::new(
                    count_in_words(median),
                    (canvas::px(8.0), 0),
                    canvas::label(canvas::INK, HPos::Left),
                );
            chart.draw_series([number])?;
        }
        Ok(())
    })
}
