//! Bars, drawn as SVG: plain, and readable on light and on dark pages.

use std::fmt::Write as _;

/// A bar for each figure, with what it says written beside it.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The file's name, without its ending.
    pub name: &'static str,
    pub title: String,
    /// What is better, and what the thin marks are.
    pub caption: String,
    pub scale: Scale,
    pub bars: Vec<Bar>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// Each grid line is ten times the one before: for figures that differ by orders.
    Logarithmic,
}

#[derive(Debug, Clone)]
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// A second value of the same kind, such as the 99th percentile: a thin line.
    pub mark: Option<f64>,
    /// What is written beside the bar.
    pub shown: String,
    pub ours: bool,
}

const WIDTH: f64 = 800.0;
const LABELS: f64 = 280.0;
/// For what is written beside the longest bar.
const RIGHT: f64 = 170.0;
const TOP: f64 = 58.0;
const ROW: f64 = 28.0;
const BAR: f64 = 16.0;
const BOTTOM: f64 = 14.0;

const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #24292f; }
  .title { font-weight: 600; font-size: 15px; }
  .caption { font-size: 12px; fill: #57606a; }
  .label { text-anchor: end; }
  .ours { fill: #0969da; }
  .peer { fill: #8c959f; }
  .mark { stroke: #57606a; stroke-width: 1.5; }
  .grid { stroke: #8c959f; stroke-opacity: 0.3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .caption { fill: #9da7b3; }
    .ours { fill: #4493f8; }
    .peer { fill: #6e7681; }
    .mark { stroke: #c9d1d9; }
  }
";

impl Chart {
    pub fn to_svg(&self) -> String {
        let height = TOP + ROW * self.bars.len() as f64 + BOTTOM;
        let mut svg = String::new();
        let mut draw = |line: &str| {
            svg.push_str(line);
            svg.push('\n');
        };
        draw(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">",
            escape(&self.title)
        ));
        draw(&format!("<style>{STYLE}</style>"));
        draw(&text(8.0, 20.0, "title", &self.title));
        draw(&text(8.0, 40.0, "caption", &self.caption));
        let (low, high) = self.range();
        for x in self.grid(low, high) {
            let bottom = height - BOTTOM;
            draw(&format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
            ));
        }
        for (n, bar) in self.bars.iter().enumerate() {
            let top = TOP + ROW * n as f64 + (ROW - BAR) / 2.0;
            let baseline = top + BAR - 3.5;
            draw(&text(LABELS - 8.0, baseline, "label", &bar.label));
            let end = self.place(bar.value, low, high);
            let class = if bar.ours { "ours" } else { "peer" };
            // Nothing is so small that it is not there.
            let width = (end - LABELS).max(1.0);
            draw(&format!(
                "<rect class=\"{class}\" x=\"{LABELS}\" y=\"{top}\" width=\"{width:.1}\" \
                 height=\"{BAR}\" rx=\"2\"/>"
            ));
            let mut right = end;
            if let Some(mark) = bar.mark {
                let x = self.place(mark, low, high);
                right = right.max(x);
                let (y1, y2, middle) = (top + 3.0, top + BAR - 3.0, top + BAR / 2.0);
                draw(&format!(
                    "<path class=\"mark\" fill=\"none\" d=\"M{end:.1} {middle}H{x:.1}M{x:.1} {y1}V{y2}\"/>"
                ));
            }
            draw(&text(right + 6.0, baseline, "shown", &bar.shown));
        }
        draw("</svg>");
        svg
    }

    fn range(&self) -> (f64, f64) {
        let values = || self.bars.iter().flat_map(|bar| [Some(bar.value), bar.mark]);
        let positive = || values().flatten().filter(|v| v.is_finite() && *v > 0.0);
        let high = positive().fold(f64::MIN_POSITIVE, f64::max);
        match self.scale {
            Scale::Linear => (0.0, high),
            Scale::Logarithmic => {
                let low = positive().fold(high, f64::min);
                (10_f64.powf(low.log10().floor()), high.max(low * 1.01))
            }
        }
    }

    fn place(&self, value: f64, low: f64, high: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => value / high,
            Scale::Logarithmic => (value / low).log10() / (high / low).log10(),
        };
        let part = if part.is_finite() { part } else { 0.0 };
        LABELS + (WIDTH - LABELS - RIGHT) * part.clamp(0.0, 1.0)
    }

    fn grid(&self, low: f64, high: f64) -> Vec<f64> {
        let values: Vec<f64> = match self.scale {
            Scale::Linear => (0..=4).map(|n| high * f64::from(n) / 4.0).collect(),
            Scale::Logarithmic => (0..16)
                .map(|n| low * 10_f64.powi(n))
                .take_while(|value| *value <= high)
                .collect(),
        };
        values.iter().map(|v| self.place(*v, low, high)).collect()
    }
}

fn text(x: f64, y: f64, class: &str, text: &str) -> String {
    let mut line = format!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">");
    // Writing to a string does not fail.
    let _ = write!(line, "{}</text>", escape(text));
    line
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_figures_it_is_a_drawing() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            for values in [&[][..], &[0.0], &[1.0], &[1e-9, 5.0, f64::NAN]] {
                let bar = |value: &f64| Bar {
                    label: "a < b & \"c\"".into(),
                    value: *value,
                    mark: Some(value * 2.0),
                    shown: "x".into(),
                    ours: true,
                };
                let chart = Chart {
                    name: "test",
                    title: "Test".into(),
                    caption: String::new(),
                    scale,
                    bars: values.iter().map(bar).collect(),
                };
                let svg = chart.to_svg();
                assert!(svg.ends_with("</svg>\n"));
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(!svg.contains("a < b"));
            }
        }
    }
}
