package file

import (
	"errors"
	"fmt"
	"strings"

	"sluice/internal/strictyaml"
	"sluice/internal/verdict"
	"sluice/policy"
)

// value reads a node as the field's type wants it. It reports whether it could; if
// not, the problem is told, and a list or map has what could be read, a list in its
// places.
func (it *item) value(n strictyaml.Node, f *policy.Field) (any, bool) {
	if n.Kind() == strictyaml.Null {
		n.Fail("has no value", "write "+f.Type.String()+", or leave the line out")
		return nil, false
	}
	switch f.Type {
	case policy.TypeBool:
		return plain[bool](n)
	case policy.TypeScore:
		return score(n)
	case policy.TypeAction:
		return word(n, "action", verdict.AllActions(), (*verdict.Action).UnmarshalText)
	case policy.TypeDuration:
		return parsed(n, "a duration such as 90s, 4h or 30d", strictyaml.ParseDuration)
	case policy.TypeSize:
		return parsed(n, "a size such as 100MiB", func(s string) (int64, error) {
			size, err := strictyaml.ParseSize(s)
			return int64(size), err
		})
	case policy.TypeNumber:
		return plain[int](n)
	case policy.TypeClasses:
		return list(n, func(n strictyaml.Node) (any, bool) {
			return word(n, "class", verdict.AllClasses()[1:], (*verdict.Class).UnmarshalText)
		}, func(v any) verdict.Class { return v.(verdict.Class) })
	case policy.TypeGlobs:
		return plain[[]string](n)
	case policy.TypeMedia:
		return list(n, plain[string], func(v any) string { return strings.ToLower(v.(string)) })
	case policy.TypeSenders:
		return senders(it, n, f.Key)
	case policy.TypeSymbols:
		return symbols(n)
	}
	return plain[string](n)
}

// plain reads a value of one of strictyaml's own types.
func plain[T any](n strictyaml.Node) (any, bool) {
	var v T
	ok := n.Decode(&v)
	return v, ok
}

// parsed reads a scalar that has a form of its own.
func parsed[T any](n strictyaml.Node, want string, parse func(string) (T, error)) (any, bool) {
	switch n.Kind() {
	case strictyaml.List, strictyaml.Map, strictyaml.Null:
		n.Fail("wants "+want+", but this is "+n.Kind().String(), "")
		return nil, false
	}
	v, err := parse(n.Text())
	if ve := (*strictyaml.ValueError)(nil); errors.As(err, &ve) {
		n.Fail(ve.Message, ve.Remedy)
	} else if err != nil {
		n.Fail(err.Error(), "")
	}
	return v, err == nil
}

func score(n strictyaml.Node) (any, bool) {
	if n.Kind() != strictyaml.Number {
		n.Fail("wants a number, but this is "+n.Kind().String(), "write it as 5 or -0.25, without quotes")
		return nil, false
	}
	return parsed(n, "a number", verdict.ParseScore)
}

// word reads one of a few words.
func word[T fmt.Stringer](n strictyaml.Node, what string, all []T, read func(*T, []byte) error) (any, bool) {
	words := make([]string, len(all))
	for i, w := range all {
		words[i] = w.String()
	}
	known := "one of " + strings.Join(words, ", ")
	if n.Kind() != strictyaml.Text {
		n.Fail("wants "+what+", but this is "+n.Kind().String(), known)
		return nil, false
	}
	var v T
	if err := read(&v, []byte(n.Text())); err != nil {
		if near := strictyaml.Suggest(n.Text(), words); near != "" {
			known = "did you mean " + near + "?"
		}
		n.Fail(fmt.Sprintf("unknown %s %q", what, verdict.Printable(n.Text(), 60)), known)
		return nil, false
	}
	return v, true
}

// list reads a list, each element by read.
func list[T any](n strictyaml.Node, read func(strictyaml.Node) (any, bool), as func(any) T) (any, bool) {
	var nodes []raw
	ok := n.Decode(&nodes)
	vs := make([]T, len(nodes))
	for i, r := range nodes {
		if r.told() {
			continue
		}
		v, good := read(r.Node)
		if good {
			vs[i] = as(v)
		}
		ok = ok && good
	}
	return vs, ok
}

// senders reads allow_senders or deny_senders.
func senders(it *item, n strictyaml.Node, key string) (any, bool) {
	var nodes map[string]raw
	ok := n.Decode(&nodes)
	m := policy.Map[policy.SenderScore]{}
	for who, r := range nodes {
		if r.told() {
			continue
		}
		s, good := sender(r.Node)
		ok = ok && good
		at, err := policy.ParseSender(who)
		if err != nil {
			message, remedy, _ := strings.Cut(err.Error(), ": ")
			it.tell(message, remedy, key, who)
			ok = false
			continue
		}
		if _, twice := m[at]; twice {
			it.tell(fmt.Sprintf("%s stands twice, in two spellings", at), "remove one of the two", key, who)
			ok = false
			continue
		}
		m[at] = s
	}
	return m, ok
}

// sender reads a number, {score, unauthenticated, final}, or null.
func sender(n strictyaml.Node) (*policy.SenderScore, bool) {
	switch n.Kind() {
	case strictyaml.Null:
		return nil, true
	case strictyaml.Map:
		var v struct {
			Score           raw  `yaml:"score"`
			Unauthenticated bool `yaml:"unauthenticated"`
			Final           bool `yaml:"final"`
		}
		ok := n.Decode(&v)
		s := policy.SenderScore{Unauthenticated: v.Unauthenticated, Final: v.Final}
		if !v.Score.told() {
			sc, good := score(v.Score.Node)
			if good {
				s.Score = sc.(verdict.Score)
			}
			ok = ok && good
		} else if ok && !v.Final {
			n.Fail("has no score", "write {score: -5, unauthenticated: true}, or final: true")
			ok = false
		}
		return &s, ok
	}
	v, ok := score(n)
	if !ok {
		return nil, false
	}
	return &policy.SenderScore{Score: v.(verdict.Score)}, true
}

// symbols reads symbol_scores.
func symbols(n strictyaml.Node) (any, bool) {
	var nodes map[string]raw
	ok := n.Decode(&nodes)
	m := policy.Map[verdict.Score]{}
	for symbol, r := range nodes {
		if r.told() {
			continue
		}
		if r.Kind() == strictyaml.Null {
			m[symbol] = nil
			continue
		}
		m[symbol] = nil
		v, good := score(r.Node)
		if good {
			s := v.(verdict.Score)
			m[symbol] = &s
		}
		ok = ok && good
	}
	return m, ok
}
