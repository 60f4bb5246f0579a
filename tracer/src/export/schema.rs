//! Keeps docs/schema true.
//!
//! A validator for the part of JSON Schema 2020-12 that the document uses. It is stricter than the
//! document: where readers must ignore what they do not know, here every property must be declared,
//! and it notes which declared ones occur.

use std::collections::BTreeSet;

use serde_json::Value;

use super::jsonl::Lines;
use super::marks::Marks;
use super::{fixtures, json};
use crate::record::testing::{fixture, play};
use crate::record::{Reader, scan};
use crate::report::Report;

const SCHEMA: &str = include_str!("../../../docs/schema/podtrace.report-1.schema.json");

const EVENTS: &str = include_str!("../../../docs/schema/podtrace.events-1.schema.json");

pub(crate) struct Validator {
    root: Value,
    /// What the document as a whole is called in `seen`.
    title: &'static str,
    pub errors: Vec<String>,
    /// `definition.property` that occurred with a value other than null.
    seen: BTreeSet<String>,
    /// The same, null or not.
    pub met: BTreeSet<String>,
}

impl Validator {
    fn new() -> Self {
        Self::of("Report", SCHEMA)
    }

    pub fn of(title: &'static str, schema: &str) -> Self {
        let root = serde_json::from_str(schema).unwrap();
        Self { root, title, errors: Vec::new(), seen: BTreeSet::new(), met: BTreeSet::new() }
    }

    fn check(&mut self, name: &str, schema: &Value, value: &Value, at: &str) {
        for (keyword, rule) in schema.as_object().unwrap() {
            let fits = match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" | "properties" => true,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    let target = self.root["$defs"][name].clone();
                    assert!(target.is_object(), "no definition of {name}");
                    self.check(name, &target, value, at);
                    true
                }
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|t| is_type(t, value)),
                    one => is_type(one, value),
                },
                "format" => value.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
                "const" => value == rule,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.is_null() || value.as_f64() >= rule.as_f64(),
                "maximum" => value.is_null() || value.as_f64() <= rule.as_f64(),
                "prefixItems" | "minItems" | "maxItems" if value.is_null() => true,
                "minItems" => value.as_array().unwrap().len() as u64 >= rule.as_u64().unwrap(),
                "maxItems" => value.as_array().unwrap().len() as u64 <= rule.as_u64().unwrap(),
                "oneOf" => {
                    let [reference, null] = rule.as_array().unwrap().as_slice() else {
                        panic!("{at}: oneOf is for a definition or null")
                    };
                    assert_eq!(null["type"], "null");
                    if !value.is_null() {
                        self.check(name, &reference.clone(), value, at);
                    }
                    true
                }
                "anyOf" => {
                    let options = rule.as_array().unwrap();
                    options.iter().any(|option| self.fits(name, option, value, at))
                }
                "minProperties" => {
                    value.as_object().unwrap().len() as u64 >= rule.as_u64().unwrap()
                }
                "maxProperties" => {
                    value.as_object().unwrap().len() as u64 <= rule.as_u64().unwrap()
                }
                "items" if value.is_null() => true,
                "items" => {
                    for (i, item) in value.as_array().unwrap().iter().enumerate() {
                        self.check(name, rule, item, &format!("{at}[{i}]"));
                    }
                    true
                }
                "prefixItems" => {
                    for (rule, item) in
                        rule.as_array().unwrap().iter().zip(value.as_array().unwrap())
                    {
                        self.check(name, rule, item, at);
                    }
                    true
                }
                "required" => {
                    value.is_object()
                        && rule
                            .as_array()
                            .unwrap()
                            .iter()
                            .all(|property| value.get(property.as_str().unwrap()).is_some())
                }
                // Of maps, which declare no properties.
                "additionalProperties" => {
                    for (key, item) in value.as_object().unwrap() {
                        self.check(name, rule, item, &format!("{at}.{key}"));
                    }
                    true
                }
                other => panic!("the schema uses {other}, which this validator does not know"),
            };
            if !fits {
                self.errors.push(format!("{at}: {value} does not fit {keyword} {rule}"));
            }
        }
        let (Some(object), Some(properties)) = (value.as_object(), schema.get("properties")) else {
            return;
        };
        for (key, item) in object {
            match properties.get(key) {
                Some(rule) => {
                    self.met.insert(format!("{name}.{key}"));
                    if !item.is_null() {
                        self.seen.insert(format!("{name}.{key}"));
                    }
                    self.check(name, rule, item, &format!("{at}.{key}"));
                }
                None => self.errors.push(format!("{at}.{key} is not declared")),
            }
        }
    }

    /// Whether it is so; what is wrong is forgotten if it is not.
    fn fits(&mut self, name: &str, schema: &Value, value: &Value, at: &str) -> bool {
        let (errors, seen, met) = (self.errors.len(), self.seen.clone(), self.met.clone());
        self.check(name, schema, value, at);
        let fits = self.errors.len() == errors;
        if !fits {
            self.errors.truncate(errors);
            (self.seen, self.met) = (seen, met);
        }
        fits
    }

    pub fn validate(&mut self, value: &Value) {
        let root = self.root.clone();
        self.check(self.title, &root, value, "");
    }

    /// Every `definition.property`.
    pub fn declared(&self) -> BTreeSet<String> {
        let definitions = self.root["$defs"].as_object().unwrap().iter();
        definitions
            .map(|(name, d)| (name.as_str(), d))
            .chain([(self.title, &self.root)])
            .filter_map(|(name, d)| Some((name, d.get("properties")?.as_object()?)))
            .flat_map(|(name, properties)| properties.keys().map(move |k| format!("{name}.{k}")))
            .collect()
    }
}

fn is_type(name: &Value, value: &Value) -> bool {
    match name.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

#[test]
fn reports_are_as_the_schema_says() {
    let mut validator = Validator::new();
    for (name, report) in fixtures::all() {
        validator.validate(&serde_json::from_str(&json::render(&report)).unwrap());
        assert_eq!(validator.errors, [""; 0], "{name}");
    }
    // A property that no report has, with a value, would be declared in vain, or misspelt.
    let missing: Vec<_> = validator.declared().difference(&validator.seen).cloned().collect();
    assert_eq!(missing, [""; 0], "the fixtures should have these as well");
}

#[test]
fn events_are_as_their_schema_says() {
    let mut validator = Validator::of("Event", EVENTS);
    for name in ["healthy", "forward-drop", "wire-loss"] {
        let file = fixture(name);
        let replay = play(&file).unwrap();
        let marks = Marks::new([&replay.main]);
        let lines = Lines::new(&replay.main.traces[0].1, &marks, &replay);
        let mut reader = Reader::new(Box::new(std::io::Cursor::new(file))).unwrap();
        scan(&mut reader, |event| -> anyhow::Result<()> {
            if let Some(line) = lines.line(event) {
                validator.validate(&serde_json::from_str(&line)?);
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(validator.errors, [""; 0], "{name}");
    }
    // Pings have no ports and are not cut into fragments.
    let missing = validator.declared();
    let missing = missing.difference(&validator.seen);
    let missing: Vec<_> = missing.filter(|m| !m.starts_with("HeaderReport.")).collect();
    assert_eq!(missing, [""; 0], "the recordings should have these as well");
    validator.validate(&serde_json::json!({"time_ns": -1}));
    assert!(validator.errors.len() > 1);
}

#[test]
fn the_validator_finds_what_is_wrong() {
    let good: Value = serde_json::from_str(&json::render(&fixtures::healthy())).unwrap();
    let spoil: [fn(&mut Value); 7] = [
        |v| v["schema"] = "podtrace.report/2".into(),
        |v| v["verdict"]["status"] = "fine".into(),
        |v| v["verdict"]["extra"] = 1.into(),
        |v| v["packets"]["sent"] = (-1).into(),
        |v| v["started"] = "yesterday".into(),
        |v| v["journeys"][0]["hops"][0]["inner"]["ttl"] = 256.into(),
        |v| _ = v.as_object_mut().unwrap().shift_remove("loss"),
    ];
    for (i, spoil) in spoil.into_iter().enumerate() {
        let mut bad = good.clone();
        spoil(&mut bad);
        let mut validator = Validator::new();
        validator.validate(&bad);
        assert_eq!(validator.errors.len(), 1, "{i}: {:?}", validator.errors);
    }
}

#[test]
fn reports_come_back_whole_and_in_the_order_of_the_schema() {
    for (name, report) in fixtures::all() {
        let text = json::render(&report);
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(json::render(&back), text, "{name}");
        let value: Value = serde_json::from_str(&text).unwrap();
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        // What is there only where it says something stands where the schema has it.
        let present = schema["properties"].as_object().unwrap().keys();
        let present: Vec<_> = present.filter(|key| value.get(key.as_str()).is_some()).collect();
        assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), present, "{name}");
        let required = schema["required"].as_array().unwrap();
        assert!(required.iter().all(|key| value.get(key.as_str().unwrap()).is_some()), "{name}");
        assert!(!text.trim_end().contains(|c: char| c.is_control() && c != '\n'), "{name}");
    }
}
