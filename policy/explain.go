package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Row is one field of an Effective policy, in words.
type Row struct {
	Key string `json:"field"`
	// Value is written as in a policy file, on one line; "" for unset.
	Value  string `json:"value"`
	Origin string `json:"origin"`
	// NoEffect says why the field has no effect in this build; "" if it has one.
	NoEffect string `json:"no_effect,omitempty"`
}

// Rows lists every field with its value and where that came from. built has the
// names of the scanners and capabilities that are there.
func (e *Effective) Rows(built map[string]bool) []Row {
	rows := make([]Row, 0, fieldCount)
	for i := range table {
		f := &table[i]
		if f.at == nil {
			continue
		}
		rows = append(rows, Row{f.Key, e.format(f), e.Origin(f.Key), f.NoEffect(built)})
	}
	return rows
}

// Unused lists the keys of the fields that policies of the set write down though
// they have no effect in this build, in the order of the table.
func (s *Snapshot) Unused(built map[string]bool) []string {
	var used [fieldCount]bool
	for _, t := range []*set{&s.in, &s.out} {
		for i := range t.entries {
			for _, st := range t.entries[i].policy.set {
				used[st.field] = true
			}
		}
	}
	var keys []string
	for i := range table {
		if f := &table[i]; used[i] && f.NoEffect(built) != "" {
			keys = append(keys, f.Key)
		}
	}
	return keys
}

// SenderRows says what the lists of senders have for an address, as sender and as
// author, a line each; nil if nothing.
func (e *Effective) SenderRows(a envelope.Address) []string {
	var rows []string
	for _, l := range []struct {
		key  string
		list Layers[SenderScore]
	}{{keyAllow, e.AllowSenders}, {keyDeny, e.DenySenders}} {
		key, s, ok := lookupSender(l.list, a)
		if !ok {
			continue
		}
		row := fmt.Sprintf("%s: %s: %s, from %s", l.key, key, s, e.Origin(l.key))
		if l.key == keyAllow && !s.Unauthenticated {
			row += "; counts only if SPF (sender) or an aligned DKIM signature (author) passed"
		}
		rows = append(rows, row)
	}
	return rows
}

// String writes the entry as in a policy file.
func (s SenderScore) String() string {
	if !s.Unauthenticated && !s.Final {
		return s.Score.String()
	}
	b := "{score: " + s.Score.String()
	if s.Unauthenticated {
		b += ", unauthenticated: true"
	}
	if s.Final {
		b += ", final: true"
	}
	return b + "}"
}

func (e *Effective) format(f *Field) string {
	switch v := f.at(e).(type) {
	case **verdict.Action:
		if *v == nil {
			return ""
		}
		return (*v).String()
	case *Layers[SenderScore]:
		return formatMap(v.Merged())
	case *Layers[verdict.Score]:
		return formatMap(v.Merged())
	default:
		return formatValue(reflect.ValueOf(v).Elem().Interface(), f.Type)
	}
}

func formatMap[V fmt.Stringer](m map[string]V) string {
	var parts []string
	for k, v := range m {
		parts = append(parts, quoted(k)+": "+v.String())
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ", ") + "}"
}

// formatValue writes a value of a type that doesn't merge as in a policy file.
func formatValue(v any, t Type) string {
	switch v := v.(type) {
	case time.Duration:
		return formatDuration(v)
	case int64:
		return formatSize(v)
	case int:
		return strconv.Itoa(v)
	case bool:
		return strconv.FormatBool(v)
	case string:
		if t == TypeText || t == TypeASCII {
			return strconv.Quote(v)
		}
		return v
	case []string:
		parts := make([]string, len(v))
		for i, s := range v {
			parts[i] = quoted(s)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case []verdict.Class:
		parts := make([]string, len(v))
		for i, c := range v {
			parts[i] = c.String()
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// quoted quotes what YAML would not read as plain text.
func quoted(s string) string {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._/+-", r)) {
			return strconv.Quote(s)
		}
	}
	return s
}

func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func formatSize(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}
