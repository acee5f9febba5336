package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"sluice/internal/envelope"
)

// Policy is a set of fields, each of which may be unset. The zero value sets
// none. Only the fields that are set take memory. Not safe for use while Set runs.
type Policy struct {
	// set is in the order of the table.
	set []setting
}

type setting struct {
	field uint8
	value any
}

// Set gives the field with that key a value, which must be of the Go type that
// the field's Type names and which the policy keeps: the caller doesn't change it
// any more. A field that was set is set anew.
func (p *Policy) Set(key string, value any) error {
	f, ok := Lookup(key)
	if !ok {
		return fmt.Errorf("policy: no field %q", key)
	}
	if !f.Type.fits(value) {
		return fmt.Errorf("policy: %s can't be a %T: it is %s", key, value, f.Type)
	}
	i, found := slices.BinarySearchFunc(p.set, f.index, func(s setting, n int) int { return int(s.field) - n })
	if found {
		p.set[i].value = value
		return nil
	}
	p.set = slices.Insert(p.set, i, setting{uint8(f.index), value})
	return nil
}

// Get returns the value of the field with that key, and whether it is set.
func (p *Policy) Get(key string) (any, bool) {
	f, ok := Lookup(key)
	if !ok {
		return nil, false
	}
	i, found := slices.BinarySearchFunc(p.set, f.index, func(s setting, n int) int { return int(s.field) - n })
	if !found {
		return nil, false
	}
	return p.set[i].value, true
}

// All goes over the fields that are set, in the order of the table.
func (p *Policy) All() iter.Seq2[*Field, any] {
	return func(yield func(*Field, any) bool) {
		for _, s := range p.set {
			if !yield(&table[s.field], s.value) {
				return
			}
		}
	}
}

// like returns the name of the plan, "" if there is none.
func (p *Policy) like() string {
	v, _ := p.Get(keyLike)
	name, _ := v.(string)
	return name
}

// Entry is one policy with what it applies to.
type Entry struct {
	Direction envelope.Direction
	// Match is what ParseMatch reads.
	Match  string
	Policy Policy
}

// Everyone is the match that applies to all addresses.
const Everyone = "@."

// ParseMatch reads what a policy applies to and returns it in the form in which
// it is looked up: an address (user@example.org), a domain alone (@example.org),
// a domain and all below it (@.example.org), everyone (@.), or a plan (=NAME).
func ParseMatch(s string) (string, error) {
	switch {
	case s == Everyone:
		return s, nil
	case strings.HasPrefix(s, "="):
		if err := CheckPlan(s[1:]); err != nil {
			return "", err
		}
		return s, nil
	case strings.HasPrefix(s, "@."):
		if d := envelope.ALabel(s[2:]); envelope.ValidDomain(d) && d[0] != '[' {
			return "@." + d, nil
		}
	case strings.HasPrefix(s, "@"):
		if d := envelope.ALabel(s[1:]); envelope.ValidDomain(d) {
			return "@" + d, nil
		}
	default:
		if a, err := envelope.ParseStrict(s); err == nil {
			return a.Key(), nil
		}
	}
	return "", fmt.Errorf("%q is no match: write user@example.org, @example.org (that domain), @.example.org (it and all below), @. (everyone) or =NAME (a plan)", s)
}

// CheckPlan says whether a plan may bear the name: letters, digits, '.', '_' and
// '-', at most 64 of them.
func CheckPlan(name string) error {
	bad := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%q is no name of a plan: 1 to 64 letters, digits, '.', '_' or '-'", name)
	}
	return nil
}
