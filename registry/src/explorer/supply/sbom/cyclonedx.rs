//! CycloneDX 1.2 to 1.6 as JSON (cyclonedx.org/specification). Components may lie in components: all are taken into one
//! list as they come, so that however they are nested no more are kept than [`MOST`].

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::bounded::Bounded;
use super::{MOST, Package, Sbom, kind_of, told};
use crate::explorer::supply::{UnreadableDocument, clipped};

#[derive(Deserialize)]
struct Document<'d> {
    #[serde(default)]
    metadata: Option<Metadata<'d>>,
    #[serde(default, borrow)]
    components: Option<&'d RawValue>,
}

#[derive(Deserialize)]
struct Metadata<'d> {
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(default, borrow)]
    tools: Option<&'d RawValue>,
    #[serde(default)]
    component: Option<Tool>,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    version: Option<String>,
}

/// Since 1.5 tools are components.
#[derive(Deserialize)]
struct Tools {
    #[serde(default)]
    components: Bounded<Tool, 20>,
}

#[derive(Deserialize)]
struct License {
    #[serde(default)]
    license: Option<Named>,
    #[serde(default)]
    expression: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

/// Reads a document that says that it is one.
pub fn read(bytes: &[u8], version: &str) -> Result<Sbom, UnreadableDocument> {
    let document: Document<'_> = serde_json::from_slice(bytes)?;
    let mut sbom = Sbom {
        format: clipped(&format!("CycloneDX {version}")),
        ..Sbom::default()
    };
    if let Some(metadata) = document.metadata {
        sbom.created = told(metadata.timestamp);
        sbom.name = metadata.component.as_ref().and_then(tool);
        // What made it may be told in either way, and hides nothing if it is told in a third.
        let raw = metadata.tools.map_or("[]", RawValue::get);
        let tools = serde_json::from_str::<Bounded<Tool, 20>>(raw)
            .or_else(|_| serde_json::from_str::<Tools>(raw).map(|tools| tools.components));
        sbom.tools = tools.map_or_else(
            |_| Vec::new(),
            |tools| tools.items.iter().filter_map(tool).collect(),
        );
    }
    if let Some(components) = document.components {
        let mut from = serde_json::Deserializer::from_str(components.get());
        Components(&mut sbom).deserialize(&mut from)?;
    }
    Ok(sbom)
}

fn tool(tool: &Tool) -> Option<String> {
    let name = tool.name.as_deref()?;
    Some(clipped(&match &tool.version {
        Some(version) => format!("{name} {version}"),
        None => name.to_owned(),
    }))
}

/// A list of components, which go into one list whatever they lie in.
struct Components<'s>(&'s mut Sbom);

impl<'de> DeserializeSeed<'de> for Components<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Components<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of components")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Component(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

struct Component<'s>(&'s mut Sbom);

impl<'de> DeserializeSeed<'de> for Component<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Component<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut package = Package::default();
        let (mut kind, mut group) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => package.name = told(map.next_value()?).unwrap_or_default(),
                "group" => group = told(map.next_value()?),
                "version" => package.version = told(map.next_value()?),
                "type" => kind = told(map.next_value()?),
                "purl" => package.purl = told(map.next_value()?),
                "publisher" => package.supplier = told(map.next_value()?),
                "licenses" => package.licenses = licenses(&map.next_value::<Bounded<License, 20>>()?),
                "components" => map.next_value_seed(Components(&mut *self.0))?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        self.0.listed += 1;
        if package.name.is_empty() || self.0.packages.len() >= MOST {
            return Ok(());
        }
        if let Some(group) = group {
            package.name = clipped(&format!("{group}/{}", package.name));
        }
        package.kind = package.purl.as_deref().and_then(kind_of).or(kind);
        self.0.packages.push(package);
        Ok(())
    }
}

fn licenses(listed: &Bounded<License, 20>) -> Option<String> {
    let texts = listed.items.iter().filter_map(|license| {
        let named = license.license.as_ref();
        let named = named.and_then(|named| named.id.as_deref().or(named.name.as_deref()));
        license.expression.as_deref().or(named)
    });
    let texts: Vec<&str> = texts.collect();
    told(Some(texts.join(", ")))
}
