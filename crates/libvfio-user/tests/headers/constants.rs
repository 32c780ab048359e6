//! Values of all macros and enumerators, and sizes of the enums.

use std::fmt::Write as _;

use crate::compiler::{Language, run};
use crate::layouts::{number, similar_lines};

/// The facts: what to print, and its value.
pub(crate) fn constants() -> Vec<(&'static str, usize)> {
    include_str!("constants.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name, number(value)))
        .collect()
}

#[test]
fn constants_have_their_values() {
    let mut source =
        String::from("#include <stdio.h>\n#include \"libvfio-user.h\"\nint main(void)\n{\n");
    let mut expected = String::new();
    for (name, value) in constants() {
        writeln!(source, "printf(\"{name} %lld\\n\", (long long)({name}));").unwrap();
        writeln!(expected, "{name} {value}").unwrap();
    }
    source.push_str("return 0;\n}\n");
    for language in Language::BOTH {
        for compiler in language.compilers() {
            let printed = run(compiler, language, "constants", &source);
            similar_lines(&expected, &printed, compiler);
        }
    }
}

/// Numbers that the preprocessor must be able to use.
#[test]
fn macros_are_constant_expressions() {
    let mut source = String::from("#include <stdio.h>\n#include \"libvfio-user.h\"\n");
    for (name, value) in constants()
        .into_iter()
        .filter(|(name, _)| crate::declared::is_macro(name))
    {
        writeln!(source, "#if {name} != {value}\n#error {name}\n#endif").unwrap();
    }
    source.push_str("int main(void) { return 0; }\n");
    for compiler in Language::C.compilers() {
        run(compiler, Language::C, "preprocessor", &source);
    }
}
