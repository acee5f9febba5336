package gateway

import (
	"slices"
	"strings"
	"testing"

	"sluice/internal/mail"
	"sluice/policy"
)

// applied makes the changes as an MTA does that holds the fields below its own
// Received, each change on what the ones before it left.
func applied(t testing.TB, fields []mail.Field, changes []policy.FieldChange) []mail.Field {
	t.Helper()
	out := append([]mail.Field{{Name: "Received", Value: " by mx.example.net"}}, fields...)
	for _, c := range changes {
		if c.Op == policy.InsertField {
			out = slices.Insert(out, min(c.Index, len(out)), mail.Field{Name: c.Name, Value: " " + c.Value})
			continue
		}
		n, at := 0, -1
		for i, f := range out[1:] {
			if isNamed(f.Name, fieldKey(c.Name)) {
				if n++; n == c.Index {
					at = i + 1
				}
			}
		}
		switch {
		case at < 0:
			t.Errorf("no field %s number %d to change", c.Name, c.Index)
		case c.Op == policy.DeleteField:
			out = slices.Delete(out, at, at+1)
		default:
			out[at].Value = " " + c.Value
		}
	}
	return out[1:]
}

// written prints fields as a message shows them.
func written(fields []mail.Field) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f.Name + ":" + strings.ReplaceAll(f.Value, "\r\n", "\n") + "\n")
	}
	return b.String()
}

func valuesOf(fields []mail.Field, name string) []string {
	var vs []string
	for _, f := range fields {
		if isNamed(f.Name, fieldKey(name)) {
			vs = append(vs, strings.TrimSpace(f.Value))
		}
	}
	return vs
}
