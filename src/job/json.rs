//! JSON in which no name stands twice in one object: of two values one would be lost without a word.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads a value, and which name stands twice in it, with those of the objects it is in.
pub(super) fn read(text: &str) -> serde_json::Result<(Value, Option<String>)> {
    let read: Read = serde_json::from_str(text)?;
    Ok((read.value, read.twice))
}

struct Read {
    value: Value,
    twice: Option<String>,
}

impl From<Value> for Read {
    fn from(value: Value) -> Self {
        Self { value, twice: None }
    }
}

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Read;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Read, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E: Error>(self, is: bool) -> Result<Read, E> {
        Ok(Value::Bool(is).into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Read, E> {
        Ok(Value::from(number).into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Read, E> {
        Ok(Value::from(number).into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Read, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("this is no number"))?;
        Ok(Value::Number(number).into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Read, E> {
        Ok(Value::from(text).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Read, A::Error> {
        let (mut all, mut twice) = (Vec::new(), None);
        while let Some(item) = items.next_element::<Read>()? {
            all.push(item.value);
            twice = twice.or(item.twice);
        }
        let value = Value::Array(all);
        Ok(Read { value, twice })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Read, A::Error> {
        let (mut all, mut twice) = (Map::new(), None);
        while let Some((name, field)) = fields.next_entry::<String, Read>()? {
            let within = field.twice.map(|inner| format!("{name}.{inner}"));
            twice = twice.or(within);
            if all.contains_key(&name) {
                twice = twice.or(Some(name.clone()));
            }
            all.insert(name, field.value);
        }
        let value = Value::Object(all);
        Ok(Read { value, twice })
    }
}
