//! Patterns for names in settings.

/// Whether `name` is as `pattern` says: `*` stands for any run of characters, everything else for
/// itself.
#[must_use]
pub fn glob(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let head = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(head) else {
        return false;
    };
    let Some(tail) = pieces.next_back() else {
        return rest.is_empty();
    };
    // The leftmost place for each piece leaves the most for those behind it.
    for piece in pieces {
        let Some((_, behind)) = rest.split_once(piece) else {
            return false;
        };
        rest = behind;
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, fits) in [
            ("public.a", "public.a", true),
            ("public.a", "public.ab", false),
            ("public.*", "public.a", true),
            ("public.*", "publicity.a", false),
            ("*", "", true),
            ("*.a", "x.a", true),
            ("*.a", "x.ab", false),
            ("p*c.a*z", "public.abcz", true),
            ("p*c.a*z", "public.abc", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("*a*b*", "xxbxxa", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(glob(pattern, name), fits, "{pattern} {name}");
        }
    }
}
