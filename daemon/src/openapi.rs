//! The OpenAPI description, made from the table of routes.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use crate::routes::{Gives, Route};
use crate::shapes::{self, Shape};

/// The description as a reply.
#[must_use]
pub fn response(table: &[Route]) -> Response {
    let mut response = Response::new(Body::from(document(table).to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The description.
#[must_use]
pub fn document(table: &[Route]) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut named = BTreeMap::from([("Operation", shapes::OPERATION)]);
    for route in table.iter().filter(|route| !route.hidden) {
        let method = route.method.as_str().to_lowercase();
        let path = route.path.replace("{*", "{");
        paths.entry(path).or_default().insert(method, operation(route));
        if let Gives::Object(shape) | Gives::List(shape) = route.gives {
            named.insert(shape.name, shape);
        }
        named.extend(route.takes.map(|shape| (shape.name, shape)));
    }
    let schemas: Map<_, _> = named
        .into_iter()
        .map(|(name, shape)| (name.to_owned(), shapes::schema(&(shape.example)())))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Cabin",
            "description": "System containers over the Incus 1.0 REST API.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0"},
        },
        "servers": [{"url": "http://cabin", "description": "the unix socket; the host's name does not count"}],
        "paths": paths,
        "components": {"schemas": schemas, "responses": {"Error": error()}},
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = names(route.path)
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let query: BTreeSet<&str> = route.query.iter().copied().chain(["project"]).collect();
    let takes_query = route.path.starts_with("/1.0/");
    parameters.extend(
        query
            .into_iter()
            .filter(|_| takes_query)
            .map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}})),
    );
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.about,
        "tags": [tag(route.path)],
        "parameters": parameters,
        "responses": responses(route),
    });
    if let (Some(shape), Some(fields)) = (route.takes, operation.as_object_mut()) {
        let body = json!({"content": {"application/json": {"schema": reference(shape)}}});
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

fn responses(route: &Route) -> Value {
    let json_body = |schema: Value| json!({"content": {"application/json": {"schema": schema}}});
    let envelope = |metadata: Value| {
        json!({"type": "object", "properties": {
            "type": {"type": "string", "const": "sync"}, "status": {"type": "string"},
            "status_code": {"type": "integer"}, "metadata": metadata,
        }})
    };
    let (code, mut response) = match route.gives {
        Gives::Nothing => ("200", json_body(envelope(json!({})))),
        Gives::Object(shape) => ("200", json_body(envelope(reference(shape)))),
        Gives::List(shape) => {
            let items = json!({"oneOf": [{"type": "string"}, reference(shape)]});
            ("200", json_body(envelope(json!({"type": "array", "items": items}))))
        }
        Gives::Created => {
            let mut made = json_body(envelope(json!({})));
            made["headers"] = json!({"Location": {"schema": {"type": "string"}}});
            ("201", made)
        }
        Gives::Operation => {
            let body = json!({"type": "object", "properties": {
                "type": {"type": "string", "const": "async"}, "operation": {"type": "string"},
                "metadata": {"$ref": "#/components/schemas/Operation"},
            }});
            ("202", json_body(body))
        }
        Gives::Bytes => ("200", json!({"content": {"application/octet-stream": {}}})),
        Gives::Upgrade => ("101", json!({})),
    };
    response["description"] = json!("done");
    json!({ code: response, "default": {"$ref": "#/components/responses/Error"} })
}

fn error() -> Value {
    json!({
        "description": "it failed; `error` says why",
        "content": {"application/json": {"schema": {"type": "object", "properties": {
            "type": {"type": "string", "const": "error"}, "error": {"type": "string"},
            "error_code": {"type": "integer"}, "metadata": {},
        }}}},
    })
}

fn reference(shape: Shape) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", shape.name)})
}

fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}

fn tag(path: &str) -> &str {
    match path.split('/').nth(2) {
        Some(tag) if path.starts_with("/1.0/") => tag,
        Some(_) => "internal",
        None => "server",
    }
}

fn operation_id(route: &Route) -> String {
    let words: String =
        route.path.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let words: Vec<_> = words.split('_').filter(|word| !word.is_empty()).collect();
    format!("{}_{}", route.method.as_str().to_lowercase(), words.join("_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;

    #[test]
    fn every_route_is_described_once() {
        let table = routes::table();
        let document = document(&table);
        let described: usize =
            document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(
            described,
            table.iter().filter(|route| !route.hidden).count(),
            "a method and address stand twice in the table"
        );
        let ids: BTreeSet<_> = table.iter().map(operation_id).collect();
        assert_eq!(ids.len(), table.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document(&routes::table());
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        for name in ["Instance", "Operation"] {
            assert_eq!(schemas[name]["type"], "object", "{name}");
        }
        assert_eq!(schemas["Instance"]["properties"]["ephemeral"]["type"], "boolean");
    }
}
