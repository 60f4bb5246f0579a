//! What `nft -j list ruleset` prints → tables (libnftables-json(5)). Pure.

mod action;
mod matching;
mod text;

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Action, Backend, BaseChain, Chain, Condition, Counter, FirewallRule, Match, NfHook, Policy,
    Table, TableFamily,
};

/// What belongs to a table and is referred to by name.
#[derive(Default)]
struct Named<'a> {
    /// Elements of sets and maps.
    sets: HashMap<&'a str, &'a [Value]>,
    counters: HashMap<&'a str, Counter>,
}

/// The tables in the output of `nft -j list ruleset`; what is no JSON is an error, in words.
///
/// # Errors
/// When `json` is not what nft prints.
pub fn parse(json: &str) -> Result<Vec<Table>, String> {
    let document: Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let objects = document.get("nftables").and_then(Value::as_array).ok_or("no \"nftables\"")?;
    let mut tables: Vec<Table> = Vec::new();
    let mut named: HashMap<(TableFamily, &str), Named<'_>> = HashMap::new();
    for (kind, object) in objects.iter().filter_map(only_member) {
        if let Some(table) = place(object)
            && let Some(name) = word(object, "name")
        {
            let named = named.entry(table).or_default();
            match kind {
                "set" | "map" => _ = named.sets.insert(name, array(object.get("elem"))),
                "counter" => named.counters.extend(counter(object).map(|c| (name, c))),
                _ => {}
            }
        }
    }
    let none = Named::default();
    for (kind, object) in objects.iter().filter_map(only_member) {
        match kind {
            "table" => {
                if let Some(family) = family(object)
                    && let Some(name) = word(object, "name")
                {
                    let (backend, chains) = (Backend::Nft, Vec::new());
                    tables.push(Table { backend, family, name: name.to_owned(), chains });
                }
            }
            "chain" => {
                if let Some(table) = find(&mut tables, object)
                    && let Some(name) = word(object, "name")
                {
                    let (name, base) = (name.to_owned(), base(object));
                    table.chains.push(Chain { name, base, rules: Vec::new() });
                }
            }
            "rule" => {
                let named = place(object).and_then(|p| named.get(&p)).unwrap_or(&none);
                if let Some(table) = find(&mut tables, object)
                    && let Some(name) = word(object, "chain")
                {
                    let rule = rule(object, table.family, named);
                    if let Some(chain) = table.chains.iter_mut().find(|c| c.name == name) {
                        chain.rules.push(rule);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(tables)
}

/// Replaces the rules' JSON by what `nft -a list ruleset` prints for them, and adds what only that
/// tells.
pub fn add_text(tables: &mut [Table], listing: &str) {
    let listing = text::parse(listing);
    for table in tables {
        for chain in &mut table.chains {
            let Some(listed) = listing.chain(table.family.name(), &table.name, &chain.name) else {
                continue;
            };
            if let Some(base) = chain.base.as_mut().filter(|b| b.devices.is_empty()) {
                base.devices.clone_from(&listed.devices);
            }
            for rule in &mut chain.rules {
                if let Some(text) = rule.handle.and_then(|h| listed.rules.get(&h)) {
                    rule.text.clone_from(text);
                }
            }
        }
    }
}

fn find<'a>(tables: &'a mut [Table], object: &Value) -> Option<&'a mut Table> {
    let (family, name) = place(object)?;
    tables.iter_mut().find(|t| t.family == family && t.name == name)
}

fn place(object: &Value) -> Option<(TableFamily, &str)> {
    Some((family(object)?, word(object, "table")?))
}

fn family(object: &Value) -> Option<TableFamily> {
    Some(match word(object, "family")? {
        "ip" => TableFamily::Ip,
        "ip6" => TableFamily::Ip6,
        "inet" => TableFamily::Inet,
        "arp" => TableFamily::Arp,
        "bridge" => TableFamily::Bridge,
        "netdev" => TableFamily::Netdev,
        _ => return None,
    })
}

fn base(object: &Value) -> Option<BaseChain> {
    let hook = match word(object, "hook")? {
        "ingress" => NfHook::Ingress,
        "prerouting" => NfHook::Prerouting,
        "input" => NfHook::Input,
        "forward" => NfHook::Forward,
        "output" => NfHook::Output,
        "postrouting" => NfHook::Postrouting,
        "egress" => NfHook::Egress,
        _ => return None,
    };
    let devices = match object.get("dev") {
        Some(Value::String(name)) => vec![name.clone()],
        names => array(names).iter().filter_map(|n| Some(n.as_str()?.to_owned())).collect(),
    };
    let priority = object.get("prio").and_then(Value::as_i64).unwrap_or_default();
    Some(BaseChain {
        hook,
        priority: i32::try_from(priority).unwrap_or_default(),
        kind: word(object, "type").unwrap_or("filter").to_owned(),
        policy: match word(object, "policy") {
            Some("drop") => Policy::Drop,
            _ => Policy::Accept,
        },
        counter: None,
        devices,
    })
}

fn rule(object: &Value, family: TableFamily, named: &Named<'_>) -> FirewallRule {
    let expressions = array(object.get("expr"));
    let mut reader =
        Reader { family, named, conditions: Vec::new(), actions: Vec::new(), counter: None };
    for expression in expressions {
        reader.statement(expression);
    }
    let Reader { conditions, actions: mut effects, counter, .. } = reader;
    let action = effects.pop().unwrap_or(Action::Continue);
    FirewallRule {
        handle: object.get("handle").and_then(Value::as_u64),
        text: compact(&Value::Array(expressions.to_vec())),
        counter,
        conditions,
        effects,
        action,
    }
}

/// Reads a rule's statements one after the other.
struct Reader<'a> {
    family: TableFamily,
    named: &'a Named<'a>,
    conditions: Vec<Condition>,
    actions: Vec<Action>,
    counter: Option<Counter>,
}

impl Reader<'_> {
    fn statement(&mut self, statement: &Value) {
        let Some((kind, body)) = only_member(statement) else {
            return self.require(Match::Unknown(compact(statement)));
        };
        match kind {
            "match" => self.compare(body),
            "counter" => {
                self.counter = match body {
                    Value::String(name) => self.named.counters.get(name.as_str()).copied(),
                    body => counter(body),
                };
            }
            // Tell, or remember, and go on.
            "log" | "last" => {}
            "set" | "map" if body.get("stmt").is_none() => {}
            "limit" | "quota" | "meter" | "ct count" | "set" | "map" => {
                self.require(Match::Sometimes(compact(statement)));
            }
            // A condition or a target of iptables, which nft cannot look into.
            "xt" if word(body, "type") != Some("target") => {
                self.require(Match::Unknown(compact(statement)));
            }
            "vmap" => {
                let action =
                    self.choose(body).unwrap_or_else(|| Action::Unknown(compact(statement)));
                self.actions.push(action);
            }
            kind => match self.translate(kind, body).or_else(|| action::parse(kind, body)) {
                Some(action) => self.actions.push(action),
                None => self.actions.push(Action::Unknown(compact(statement))),
            },
        }
    }

    fn require(&mut self, what: Match) {
        self.conditions.push(Condition::is(what));
    }
}

fn counter(object: &Value) -> Option<Counter> {
    let number = |name: &str| object.get(name).and_then(Value::as_u64);
    Some(Counter { packets: number("packets")?, bytes: number("bytes")? })
}

/// Name and value of an object's only member: how nft writes whatever has a kind. A verdict
/// without arguments has the value null.
fn only_member(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|o| o.len() == 1)?;
    object.iter().next().map(|(kind, body)| (kind.as_str(), body))
}

fn word<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn compact(value: &Value) -> String {
    value.to_string()
}
