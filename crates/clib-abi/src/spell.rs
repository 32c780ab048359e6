//! Declarations as C would write them, to be shown beside those of a test suite.

use std::fmt;

use crate::model::{Field, Function, Kind, Prototype, Record, Type, Typedef};

impl fmt::Display for Type {
    /// The type without a name: `const char *`, `int (*)(void *, size_t)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.declare(""))
    }
}

impl Type {
    /// The declaration of `name` with this type: `const char *name`, `int (*name)(void *)`, `char name[16]`. An empty
    /// name gives the type alone.
    #[must_use]
    pub fn declare(&self, name: &str) -> String {
        let mut base = String::new();
        if self.typedefs.is_empty()
            && let Kind::Pointer { to, reference } = &self.kind
        {
            let mut inner = if *reference {
                "&".to_owned()
            } else {
                "*".to_owned()
            };
            let words = self.trailing_qualifiers();
            inner.push_str(&words);
            if !words.is_empty() && !name.is_empty() {
                inner.push(' ');
            }
            inner.push_str(name);
            let wrapped =
                to.typedefs.is_empty() && matches!(to.kind, Kind::Function(_) | Kind::Array { .. });
            return to.declare(&if wrapped { format!("({inner})") } else { inner });
        }
        for (set, word) in [
            (self.qualifiers.constant, "const "),
            (self.qualifiers.volatile, "volatile "),
            (self.qualifiers.atomic, "_Atomic "),
        ] {
            if set {
                base.push_str(word);
            }
        }
        if let Some(typedef) = self.typedefs.first() {
            base.push_str(typedef);
            return join(&base, name);
        }
        match &self.kind {
            Kind::Function(prototype) => prototype.declare(name),
            Kind::Array { element, count } => {
                let count = count.map_or_else(String::new, |count| count.to_string());
                element.declare(&format!("{name}[{count}]"))
            }
            other => {
                base.push_str(&plain_name(other));
                join(&base, name)
            }
        }
    }

    fn trailing_qualifiers(&self) -> String {
        let words = [
            (self.qualifiers.constant, "const"),
            (self.qualifiers.volatile, "volatile"),
            (self.qualifiers.restrict, "restrict"),
            (self.qualifiers.atomic, "_Atomic"),
        ];
        let words: Vec<&str> = words
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, word)| word)
            .collect();
        words.join(" ")
    }
}

impl Prototype {
    /// The declaration of `name` with this signature: `int name(void *buffer, size_t size, ...)`.
    #[must_use]
    pub fn declare(&self, name: &str) -> String {
        let mut list: Vec<String> = self
            .parameters
            .iter()
            .map(|one| one.ty.declare(one.name.as_deref().unwrap_or("")))
            .collect();
        if self.variadic {
            list.push("...".into());
        }
        if list.is_empty() && self.complete {
            list.push("void".into());
        }
        self.result.declare(&format!("{name}({})", list.join(", ")))
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prototype.declare(&self.name))
    }
}

impl fmt::Display for Typedef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "typedef {}", self.ty.declare(&self.name))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.ty.declare(self.name.as_deref().unwrap_or("")))?;
        self.bits
            .map_or(Ok(()), |bits| write!(f, " : {}", bits.width))
    }
}

impl fmt::Display for Record {
    /// Keyword and tag only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.kind.keyword(),
            self.name.as_deref().unwrap_or("{...}")
        )
    }
}

fn plain_name(kind: &Kind) -> String {
    match kind {
        Kind::Void => "void".into(),
        Kind::Boolean { name }
        | Kind::Character { name, .. }
        | Kind::Integer { name, .. }
        | Kind::Float { name }
        | Kind::Other { name } => name.clone(),
        Kind::Enumeration { name, .. } => format!("enum {}", name.as_deref().unwrap_or("{...}")),
        Kind::Record { kind, name, .. } => {
            format!("{} {}", kind.keyword(), name.as_deref().unwrap_or("{...}"))
        }
        Kind::Pointer { .. } | Kind::Function(_) | Kind::Array { .. } => String::new(),
    }
}

fn join(base: &str, name: &str) -> String {
    if name.is_empty() {
        base.to_owned()
    } else {
        format!("{base} {name}")
    }
}
