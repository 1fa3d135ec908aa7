//! Plots for the page.

use crate::report::{Curve, number};
use plotters::prelude::*;

const WIDTH: u32 = 900;
const COLORS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
    RGBColor(23, 190, 207),
];

/// A bar for each figure, from the left.
pub fn bars(unit: &str, bars: &[(String, f64)]) -> String {
    const ROW: i32 = 26;
    const NAMES: i32 = 330;
    let greatest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH as i32 - NAMES - 90);
    svg(ROW as u32 * (bars.len() as u32 + 1), |area| {
        let text = ("sans-serif", 15).into_font().color(&BLACK);
        area.draw_text(unit, &text, (NAMES, 4))?;
        for (i, (name, value)) in bars.iter().enumerate() {
            let top = ROW * (i as i32 + 1);
            let end = NAMES + (value / greatest * room) as i32;
            area.draw_text(name, &text, (0, top + 4))?;
            area.draw(&Rectangle::new([(NAMES, top), (end, top + ROW - 6)], COLORS[0].filled()))?;
            area.draw_text(&number(*value), &text, (end + 6, top + 4))?;
        }
        Ok(())
    })
}

/// A curve for each series of points, under their names.
pub fn curves(x: &str, y: &str, curves: &[Curve]) -> String {
    const ROW: u32 = 18;
    let greatest = |axis: fn(&(f64, f64)) -> f64| {
        curves.iter().flat_map(|(_, points)| points).map(axis).fold(f64::MIN_POSITIVE, f64::max)
    };
    let names = ROW * curves.len() as u32 + 6;
    svg(names + 300, |area| {
        let (above, below) = area.split_vertically(names);
        let text = ("sans-serif", 13).into_font().color(&BLACK);
        for (i, ((name, _), color)) in curves.iter().zip(COLORS.iter().cycle()).enumerate() {
            let middle = (ROW * i as u32 + ROW / 2 + 4) as i32;
            above.draw(&PathElement::new([(90, middle), (108, middle)], color.stroke_width(2)))?;
            above.draw_text(name, &text, (116, middle - 7))?;
        }
        let mut chart = ChartBuilder::on(&below)
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..greatest(|point| point.0), 0.0..greatest(|point| point.1) * 1.05)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for ((_, points), color) in curves.iter().zip(COLORS.iter().cycle()) {
            chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?;
        }
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn svg(height: u32, draw: impl FnOnce(&Area) -> Drawn) -> String {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        if let Err(error) = area.fill(&WHITE).map_err(Into::into).and_then(|()| draw(&area)) {
            return format!("<p class=failure>{error}</p>");
        }
    }
    text
}
