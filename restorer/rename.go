package restorer

import (
	"strings"

	"github.com/afterimagedb/afterimage"
)

// Rule renames the namespaces that From matches into To. Both may hold one `*`, which stands for the same text on both
// sides; a side without a dot names a whole database: "shop=shop_restored" is "shop.*=shop_restored.*".
type Rule struct{ From, To string }

// Rules are tried in order; the first that matches renames.
type Rules []Rule

// ParseRule reads FROM=TO.
func ParseRule(s string) (Rule, error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok || from == "" || to == "" {
		return Rule{}, afterimage.Usagef("rename %q: want FROM=TO, for example shop.*=shop_restored.*", s)
	}
	r := Rule{From: whole(from), To: whole(to)}
	switch {
	case strings.Count(r.From, "*") > 1 || strings.Count(r.To, "*") > 1:
		return Rule{}, afterimage.Usagef("rename %q: at most one * on each side", s)
	case strings.Contains(r.To, "*") && !strings.Contains(r.From, "*"):
		return Rule{}, afterimage.Usagef("rename %q: a * on the right needs one on the left", s)
	case strings.Contains(r.From, "*") && !strings.Contains(r.To, "*"):
		return Rule{}, afterimage.Usagef("rename %q: many namespaces can't become one: put a * on the right too", s)
	}
	return r, nil
}

// ParseRules reads several rules.
func ParseRules(list []string) (Rules, error) {
	var out Rules
	for _, s := range list {
		r, err := ParseRule(s)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func whole(side string) string {
	if strings.Contains(side, ".") {
		return side
	}
	return side + ".*"
}

// Apply returns the target name of a namespace; it is the namespace itself when no rule matches.
func (r Rules) Apply(namespace string) string {
	for _, rule := range r {
		if to, ok := rule.apply(namespace); ok {
			return to
		}
	}
	return namespace
}

func (r Rule) apply(ns string) (string, bool) {
	from, to := whole(r.From), whole(r.To)
	before, after, star := strings.Cut(from, "*")
	if !star {
		return to, ns == from
	}
	if len(ns) < len(before)+len(after) || !strings.HasPrefix(ns, before) || !strings.HasSuffix(ns, after) {
		return "", false
	}
	return strings.Replace(to, "*", ns[len(before):len(ns)-len(after)], 1), true
}
