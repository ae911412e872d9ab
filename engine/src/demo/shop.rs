//! A made-up shop: the changes of its orders and customers, with everything that goes wrong in real streams.
//!
//! The same seed gives the same records. The shop keeps its own [`Books`], by a model of a few lines that knows nothing
//! of the engine, so that the tables can be checked against them in the end.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::chance::Chance;

/// 2026-03-02T08:00:00Z, a Monday morning.
const OPENING_MS: i64 = 1_772_438_400_000;

/// About one record in six is a customer's change.
const CUSTOMER_PERCENT: u64 = 16;
const LATE_PERCENT: u64 = 3;
const DUPLICATE_PERCENT: u64 = 2;
const MALFORMED_PERMILLE: u64 = 6;

/// The topic of orders and its partitions.
pub(super) const ORDERS: (&str, i32) = ("shop.orders", 4);
/// The topic of customers and its partitions.
pub(super) const CUSTOMERS: (&str, i32) = ("shop.customers", 2);

const SKUS: [&str; 6] = ["kettle-1l", "teapot-blue", "cup-set-6", "strainer", "assam-250g", "sencha-100g"];
const NAMES: [&str; 8] = ["Ada", "Bo", "Chen", "Dilan", "Eva", "Femi", "Goran", "Hana"];
const COUNTRIES: [&str; 6] = ["DE", "FR", "PL", "NL", "IT", "SE"];

/// A record for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShopRecord {
    pub(super) topic: &'static str,
    pub(super) key: Vec<u8>,
    /// None is a tombstone.
    pub(super) value: Option<Vec<u8>>,
    pub(super) timestamp_ms: i64,
    pub(super) kind: Kind,
}

/// What a record is, in the shop's eyes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Insert,
    Update,
    Delete,
    Tombstone,
    Late,
    Duplicate,
    Malformed,
}

/// What the tables have to hold in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Books {
    /// Records by topic and kind.
    pub(super) sent: BTreeMap<(&'static str, Kind), u64>,
    /// The status of each order that is left.
    pub(super) orders: BTreeMap<u64, &'static str>,
    /// Customers that are left.
    pub(super) n_customers: u64,
    /// An order with a long story, some of it late.
    pub(super) storied_order: Option<u64>,
}

/// Everything that a shop sends, in order, and its books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) records: Vec<ShopRecord>,
    pub(super) books: Books,
}

#[derive(Debug, Clone)]
struct Order {
    id: u64,
    customer_id: u64,
    cents: u64,
    items: Value,
    status: &'static str,
    updated_ms: i64,
    n_changes: u64,
    n_late: u64,
}

/// Returns `n_records` records of the shop that `seed` makes.
pub(super) fn open_shop(seed: u64, n_records: usize) -> Stream {
    let mut shop = Shop {
        chance: Chance::new(seed),
        now_ms: OPENING_MS,
        open: Vec::new(),
        closed: Vec::new(),
        n_orders: 0,
        customers: Vec::new(),
        n_customers: 0,
        stream: Stream { records: Vec::with_capacity(n_records), books: Books::default() },
    };
    while shop.stream.records.len() < n_records {
        shop.step();
    }
    shop.close()
}

struct Shop {
    chance: Chance,
    now_ms: i64,
    /// Orders that may still change.
    open: Vec<Order>,
    /// Orders that were deleted by a record, which late records may follow.
    closed: Vec<Order>,
    n_orders: u64,
    customers: Vec<u64>,
    n_customers: u64,
    stream: Stream,
}

impl Shop {
    fn step(&mut self) {
        self.now_ms += 20 + i64::try_from(self.chance.below(400)).unwrap_or(0);
        if self.chance.below(1_000) < MALFORMED_PERMILLE {
            return self.malformed();
        }
        if self.customers.is_empty() || self.chance.happens(CUSTOMER_PERCENT) {
            return self.customer();
        }
        if self.chance.happens(DUPLICATE_PERCENT) {
            return self.duplicate();
        }
        if self.chance.happens(LATE_PERCENT) {
            return self.late();
        }
        let few = self.open.len() < 40;
        if few || self.chance.happens(35) { self.new_order() } else { self.change_order() }
    }

    fn new_order(&mut self) {
        self.n_orders += 1;
        let n_items = 1 + self.chance.below(4);
        let items: Vec<Value> = (0..n_items)
            .map(|_| json!({"sku": self.chance.pick(&SKUS, "cup"), "quantity": 1 + self.chance.below(5)}))
            .collect();
        let place = usize::try_from(self.chance.below(self.customers.len() as u64)).unwrap_or(0);
        let order = Order {
            id: 1_000 + self.n_orders,
            customer_id: self.customers.get(place).copied().unwrap_or(1),
            cents: 490 + self.chance.below(25_000),
            items: Value::Array(items),
            status: "PLACED",
            updated_ms: self.now_ms,
            n_changes: 1,
            n_late: 0,
        };
        self.send_order(&order, "insert", Kind::Insert);
        self.open.push(order);
    }

    fn change_order(&mut self) {
        let place = usize::try_from(self.chance.below(self.open.len() as u64)).unwrap_or(0);
        let mut order = self.open.swap_remove(place);
        order.updated_ms = self.now_ms;
        order.n_changes += 1;
        let is_done = matches!(order.status, "DELIVERED" | "CANCELLED");
        if is_done && self.chance.happens(15) {
            self.send_order(&order, "delete", Kind::Delete);
            self.closed.push(order);
            return;
        }
        if is_done && self.chance.happens(10) {
            self.send(ORDERS.0, &json!({"order_id": order.id}), None, Kind::Tombstone);
            return;
        }
        order.status = match order.status {
            "PLACED" if self.chance.happens(12) => "CANCELLED",
            "PLACED" => "PAID",
            "PAID" => "SHIPPED",
            "SHIPPED" => "DELIVERED",
            done => done,
        };
        self.send_order(&order, "update", Kind::Update);
        self.open.push(order);
    }

    /// A state that newer ones have overtaken on their way: of an order that lives, or of one that was deleted.
    fn late(&mut self) {
        let of_deleted = !self.closed.is_empty() && self.chance.happens(30);
        let orders = if of_deleted { &mut self.closed } else { &mut self.open };
        if orders.is_empty() {
            return self.new_order();
        }
        let place = usize::try_from(self.chance.below(orders.len() as u64)).unwrap_or(0);
        let Some(order) = orders.get_mut(place) else { return };
        order.n_late += 1;
        let mut overtaken = order.clone();
        overtaken.updated_ms -= 1 + i64::try_from(self.chance.below(60_000)).unwrap_or(0);
        overtaken.status = "PLACED";
        self.send_order(&overtaken, "update", Kind::Late);
    }

    /// The last state of an order once more, as producers send that did not hear the broker's answer.
    fn duplicate(&mut self) {
        let Some(order) = self.open.last().cloned() else { return self.new_order() };
        let op = if order.n_changes == 1 { "insert" } else { "update" };
        self.send_order(&order, op, Kind::Duplicate);
    }

    fn malformed(&mut self) {
        let id = 1_000 + self.n_orders;
        let value = match self.chance.below(4) {
            0 => format!(r#"{{"order_id": {id}, "status": "PAI"#),
            1 => format!(r#"{{"order_id": {id}, "amount": "a lot", "op": "update"}}"#),
            2 => r#"{"status": "PAID", "amount": 12.50, "op": "update"}"#.to_owned(),
            _ => "order 1007 was paid".to_owned(),
        };
        self.send(ORDERS.0, &json!({"order_id": id}), Some(value), Kind::Malformed);
    }

    fn customer(&mut self) {
        let n_known = self.customers.len() as u64;
        let is_new = n_known < 5 || self.chance.happens(60);
        if !is_new && self.chance.happens(5) {
            let place = usize::try_from(self.chance.below(n_known)).unwrap_or(0);
            let id = self.customers.swap_remove(place);
            self.n_customers -= 1;
            return self.send_customer(id, "delete", Kind::Delete);
        }
        if is_new {
            let id = self.stream.records.len() as u64 + 1;
            self.customers.push(id);
            self.n_customers += 1;
            return self.send_customer(id, "insert", Kind::Insert);
        }
        let place = usize::try_from(self.chance.below(n_known)).unwrap_or(0);
        let id = self.customers.get(place).copied().unwrap_or(1);
        self.send_customer(id, "update", Kind::Update);
    }

    fn send_order(&mut self, order: &Order, op: &str, kind: Kind) {
        let cents = format!("{}.{:02}", order.cents / 100, order.cents % 100);
        let value = format!(
            r#"{{"op": "{op}", "order_id": {}, "customer_id": {}, "amount": {cents}, "currency": "eur", "status": "{}", "items": {}, "updated_at": "{}"}}"#,
            order.id,
            order.customer_id,
            order.status,
            order.items,
            alluvium_catalog::Timestamp(order.updated_ms),
        );
        self.send(ORDERS.0, &json!({"order_id": order.id}), Some(value), kind);
    }

    fn send_customer(&mut self, id: u64, op: &str, kind: Kind) {
        let name = self.chance.pick(&NAMES, "Ida");
        let value = json!({
            "op": op, "customer_id": id, "name": name,
            "email": format!("{}.{id}@example.org", name.to_lowercase()),
            "country": self.chance.pick(&COUNTRIES, "DE"),
            "updated_at": alluvium_catalog::Timestamp(self.now_ms).to_string(),
        });
        self.send(CUSTOMERS.0, &json!({"customer_id": id}), Some(value.to_string()), kind);
    }

    fn send(&mut self, topic: &'static str, key: &Value, value: Option<String>, kind: Kind) {
        *self.stream.books.sent.entry((topic, kind)).or_default() += 1;
        self.stream.records.push(ShopRecord {
            topic,
            key: key.to_string().into_bytes(),
            value: value.map(String::into_bytes),
            timestamp_ms: self.now_ms,
            kind,
        });
    }

    fn close(mut self) -> Stream {
        let books = &mut self.stream.books;
        books.orders = self.open.iter().map(|order| (order.id, order.status)).collect();
        books.n_customers = self.n_customers;
        books.storied_order = self
            .open
            .iter()
            .max_by_key(|order| (order.n_late.min(1), order.n_changes.min(5), order.id))
            .map(|order| order.id);
        self.stream
    }
}

impl Books {
    /// Returns the records of a kind, over both topics.
    pub(super) fn of_kind(&self, kind: Kind) -> u64 {
        self.sent.iter().filter(|((_, sent), _)| *sent == kind).map(|(_, records)| records).sum()
    }

    /// Returns the records of a topic.
    pub(super) fn of_topic(&self, topic: &str) -> u64 {
        self.sent.iter().filter(|((sent, _), _)| *sent == topic).map(|(_, records)| records).sum()
    }

    /// Returns the events that an append of all readable orders has to hold.
    pub(super) fn n_order_events(&self) -> u64 {
        self.of_topic(ORDERS.0) - self.of_kind(Kind::Malformed) - self.of_kind(Kind::Tombstone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_makes_one_shop() {
        assert_eq!(open_shop(7, 5_000), open_shop(7, 5_000));
        assert_ne!(open_shop(7, 500), open_shop(8, 500));
    }

    #[test]
    fn every_kind_of_trouble_is_in_the_smallest_stream() {
        let Stream { records, books } = open_shop(7, 1_000);
        assert_eq!(records.len(), 1_000);
        for kind in [Kind::Insert, Kind::Update, Kind::Delete, Kind::Late, Kind::Duplicate, Kind::Malformed] {
            assert!(books.of_kind(kind) > 0, "{kind:?} is missing: {books:?}");
        }
        assert_eq!(books.of_topic(ORDERS.0) + books.of_topic(CUSTOMERS.0), 1_000);
    }

    #[test]
    fn books_agree_with_a_replay_of_the_records() {
        let Stream { records, books } = open_shop(7, 20_000);
        let mut newest: BTreeMap<u64, (String, bool)> = BTreeMap::new();
        for record in records.iter().filter(|record| record.topic == ORDERS.0 && record.kind != Kind::Malformed) {
            let key: Value = serde_json::from_slice(&record.key).unwrap_or_default();
            let id = key.pointer("/order_id").and_then(Value::as_u64).unwrap_or(0);
            let Some(value) = &record.value else {
                newest.remove(&id);
                continue;
            };
            let value: Value = serde_json::from_slice(value).unwrap_or_default();
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let state = (text("updated_at"), text("op") != "delete");
            let known = newest.entry(id).or_insert_with(|| state.clone());
            if state.0 >= known.0 {
                *known = state;
            }
        }
        let alive: Vec<u64> = newest.into_iter().filter(|(_, (_, lives))| *lives).map(|(id, _)| id).collect();
        assert_eq!(alive, books.orders.keys().copied().collect::<Vec<_>>());
        assert!(books.of_kind(Kind::Tombstone) > 0);
    }
}
