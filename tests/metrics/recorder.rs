//! A recorder of the `metrics` facade that keeps everything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata,
    Recorder, SharedString, Unit,
};

/// One series. Gauges change by steps, and histograms keep each value.
#[derive(Default)]
pub struct Series(Mutex<Vec<f64>>);

impl Series {
    fn push(&self, change: f64) {
        self.0.lock().unwrap().push(change);
    }

    pub fn sum(&self) -> f64 {
        self.0.lock().unwrap().iter().sum()
    }

    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.push(value as f64);
    }

    fn absolute(&self, value: u64) {
        panic!("set to {value}: nobody else counts");
    }
}

impl GaugeFn for Series {
    fn increment(&self, value: f64) {
        self.push(value);
    }

    fn decrement(&self, value: f64) {
        self.push(-value);
    }

    fn set(&self, value: f64) {
        panic!("set to {value}: changes commute, values do not");
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.push(value);
    }
}

/// By name and labels, as `name{node="a",..}`.
#[derive(Default)]
pub struct Kept {
    series: Mutex<BTreeMap<String, Arc<Series>>>,
    described: Mutex<BTreeSet<String>>,
    registered: Mutex<BTreeSet<String>>,
}

impl Kept {
    fn add(&self, key: &Key) -> Arc<Series> {
        self.registered.lock().unwrap().insert(key.name().into());
        let mut series = self.series.lock().unwrap();
        series.entry(named(key)).or_default().clone()
    }

    fn describe(&self, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        assert!(unit.is_some(), "{}: no unit", name.as_str());
        assert!(text.len() > 15 && text.ends_with('.'), "{text}");
        self.described.lock().unwrap().insert(name.as_str().into());
    }

    /// Of a node of the network `test`.
    pub fn of(&self, name: &str, node: &str, label: Option<(&str, &str)>) -> Arc<Series> {
        let mut labels = vec![("network", "test"), ("node", node)];
        labels.extend(label);
        let labels = labels.into_iter();
        let labels: Vec<_> = labels
            .map(|(key, value)| Label::new(key.to_owned(), value.to_owned()))
            .collect();
        let key = Key::from_parts(name.to_owned(), labels);
        let series = self.series.lock().unwrap();
        let found = series.get(&named(&key));
        found
            .unwrap_or_else(|| panic!("no {}", named(&key)))
            .clone()
    }

    pub fn all(&self) -> BTreeMap<String, Arc<Series>> {
        self.series.lock().unwrap().clone()
    }

    /// What has a description and no value, or a value and no description.
    pub fn halves(&self) -> Vec<String> {
        let described = self.described.lock().unwrap();
        let registered = self.registered.lock().unwrap();
        described
            .symmetric_difference(&registered)
            .cloned()
            .collect()
    }
}

fn named(key: &Key) -> String {
    let labels = key.labels().map(|l| format!("{}={:?}", l.key(), l.value()));
    let labels: BTreeSet<_> = labels.collect();
    let labels: Vec<_> = labels.into_iter().collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Recorder for Kept {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe(&name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.add(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.add(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.add(key))
    }
}
