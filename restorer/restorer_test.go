package restorer

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRules(t *testing.T) {
	cases := []struct{ rule, ns, want string }{
		{"shop.*=shop_restored.*", "shop.orders", "shop_restored.orders"},
		{"shop.*=shop_restored.*", "shop.a.b", "shop_restored.a.b"},
		{"shop.*=shop_restored.*", "shopping.orders", "shopping.orders"},
		{"shop=copy", "shop.orders", "copy.orders"},
		{"shop.orders=shop.orders_old", "shop.orders", "shop.orders_old"},
		{"shop.orders=shop.orders_old", "shop.orders2", "shop.orders2"},
		{"*=r_*", "shop.orders", "shop.orders"}, // a side without a dot is a database: "*.*" has two stars
		{"shop.a*z=x.*", "shop.abcz", "x.bc"},
		{"shop.a*a=x.b*", "shop.a", "shop.a"},
		{"shop.*=shop.$1", "shop.a", "shop.a"},
	}
	for _, c := range cases {
		r, err := ParseRule(c.rule)
		if err != nil {
			if c.want != c.ns {
				t.Errorf("%s: %v", c.rule, err)
			}
			continue
		}
		if got := (Rules{r}).Apply(c.ns); got != c.want {
			t.Errorf("%s of %s: %s, want %s", c.rule, c.ns, got, c.want)
		}
	}
	for _, bad := range []string{"", "=", "a=", "=b", "shop", "a.*=b.c", "a.b=c.*", "a.*.*=b.*"} {
		if r, err := ParseRule(bad); err == nil {
			t.Errorf("%q was taken as %+v", bad, r)
		}
	}
	two, err := ParseRules([]string{"a.x=a.y", "a=b"})
	if err != nil || two.Apply("a.x") != "a.y" || two.Apply("a.z") != "b.z" {
		t.Errorf("the first rule that matches does not win: %v", err)
	}
}

func TestSelection(t *testing.T) {
	s := Selection{Include: []string{"shop", "log.2026*"}, Exclude: []string{"shop.tmp*"}}
	for ns, want := range map[string]bool{
		"shop.orders": true, "shop.tmp1": false, "shops.orders": false, "log.20261": true, "log.2025": false, "other.x": false,
	} {
		if s.Match(ns) != want {
			t.Errorf("%s: %v", ns, !want)
		}
	}
	if !(Selection{}).Match("any.thing") || (Selection{Exclude: []string{"*"}}).Match("any.thing") {
		t.Error("no patterns select everything, * everything")
	}
	if got := s.Unmatched([]string{"shop.a"}); len(got) != 1 || got[0] != "log.2026*" {
		t.Errorf("unmatched %v", got)
	}
}

// TestGlob compares with a plain recursive matcher.
func TestGlob(t *testing.T) {
	var slow func(p, s string) bool
	slow = func(p, s string) bool {
		if p == "" {
			return s == ""
		}
		if p[0] == '*' {
			return slow(p[1:], s) || s != "" && slow(p, s[1:])
		}
		return s != "" && p[0] == s[0] && slow(p[1:], s[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.StringOfN(rapid.SampledFrom([]rune("ab*.")), 0, 8, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("ab.")), 0, 8, -1).Draw(t, "s")
		if glob(p, s) != slow(p, s) {
			t.Fatalf("%q of %q: %v", p, s, glob(p, s))
		}
	})
}

func TestErrorsNameEverything(t *testing.T) {
	e := &ExistsError{Namespaces: []string{"a.b", "c.d"}}
	if s := e.Error(); !strings.Contains(s, "a.b, c.d") || !strings.Contains(s, "--overwrite") {
		t.Error(s)
	}
	var many []string
	for range 12 {
		many = append(many, "x")
	}
	if s := (&VerifyError{Problems: many}).Error(); !strings.Contains(s, "and 2 more") {
		t.Error(s)
	}
}
