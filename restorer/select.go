package restorer

import "strings"

// Selection chooses namespaces by patterns. In a pattern `*` stands for any run of characters; a pattern without a dot
// names a whole database. Nothing in Include means everything; Exclude wins over Include.
type Selection struct {
	Include []string
	Exclude []string
}

// Match reports whether the namespace is chosen.
func (s Selection) Match(namespace string) bool {
	if matchAny(s.Exclude, namespace) {
		return false
	}
	return len(s.Include) == 0 || matchAny(s.Include, namespace)
}

// Unmatched returns the include patterns that match none of the namespaces: most likely a typing error.
func (s Selection) Unmatched(namespaces []string) []string {
	var out []string
	for _, p := range s.Include {
		found := false
		for _, ns := range namespaces {
			found = found || MatchNamespace(p, ns)
		}
		if !found {
			out = append(out, p)
		}
	}
	return out
}

func matchAny(patterns []string, namespace string) bool {
	for _, p := range patterns {
		if MatchNamespace(p, namespace) {
			return true
		}
	}
	return false
}

// MatchNamespace reports whether a pattern of [Selection] matches a namespace.
func MatchNamespace(pattern, namespace string) bool {
	if !strings.Contains(pattern, ".") && pattern != "*" {
		pattern += ".*"
	}
	return glob(pattern, namespace)
}

// glob matches s as a whole; it backtracks to the last star only, so it is linear in practice and quadratic at worst.
func glob(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && pattern[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
