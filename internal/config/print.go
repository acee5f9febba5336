package config

import (
	"encoding"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/internal/strictyaml"
)

// YAML prints what is in force, as a file that Load reads again to the same
// effect. Passwords are left out.
func (l *Loaded) YAML() string { return render(&l.Config, nil, l.unwritten()) }

// Differences prints only what differs from the built-in values; "" if nothing does.
func (l *Loaded) Differences() string { return render(&l.Config, &l.base, nil) }

// mayBeAbsent are keys whose built-in values name files that need not be there. Written
// down they have to be.
var mayBeAbsent = [...][2]string{{"policy", "file"}, {"rules", "paths"}}

// unwritten are those of them that the file doesn't set.
func (l *Loaded) unwritten() map[[2]string]bool {
	return map[[2]string]bool{
		mayBeAbsent[0]: !l.doc.Has("policy", "file"),
		mayBeAbsent[1]: !l.doc.Has("scanners", "rules", "paths"),
	}
}

// DefaultYAML prints the built-in values.
func DefaultYAML() string {
	d := Default()
	return render(&d, nil, map[[2]string]bool{mayBeAbsent[0]: true, mayBeAbsent[1]: true})
}

// render prints c, without what is the same in base (nil: everything). The keys (with their
// sections) in comment are printed behind a #.
func render(c, base *Config, comment map[[2]string]bool) string {
	shown := *c
	shown.Postgres.DSN = withoutPassword(shown.Postgres.DSN)
	p := printer{comment: comment}
	var b reflect.Value
	if base != nil {
		b = reflect.ValueOf(*base)
	}
	p.structure(reflect.ValueOf(shown), b, "", 0)
	return p.String()
}

type printer struct {
	strings.Builder
	comment map[[2]string]bool
}

// structure prints the fields of v, a section, that differ from those of base,
// which may be the zero Value.
func (p *printer) structure(v, base reflect.Value, section string, indent int) {
	for _, f := range reflect.VisibleFields(v.Type()) {
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		fv, fb := v.FieldByIndex(f.Index), reflect.Value{}
		if base.IsValid() {
			if fb = base.FieldByIndex(f.Index); reflect.DeepEqual(fv.Interface(), fb.Interface()) {
				continue
			}
		}
		pad := strings.Repeat("  ", indent)
		if s, ok := fv.Interface().(Scanners); ok {
			p.scanners(&s, fb, pad, indent)
			continue
		}
		if text, ok := scalar(fv); ok {
			note := ""
			if p.comment[[2]string{section, key}] {
				pad, note = pad+"# ", "  # may be absent; once written here it has to be there"
			}
			fmt.Fprintf(p, "%s%s: %s%s\n", pad, key, text, note)
			continue
		}
		fmt.Fprintf(p, "%s%s:\n", pad, key)
		p.structure(fv, fb, key, indent+1)
	}
}

// scanners prints the section scanners. Writing it turns off what it doesn't
// list, so all that are on are listed.
func (p *printer) scanners(s *Scanners, base reflect.Value, pad string, indent int) {
	fmt.Fprintf(p, "%sscanners:\n", pad)
	v := reflect.ValueOf(*s)
	for i, e := range s.all() {
		if !e.scanner.On {
			if !base.IsValid() || base.Field(i).FieldByName("On").Bool() {
				fmt.Fprintf(p, "%s  %s: false\n", pad, e.name)
			}
			continue
		}
		inner := printer{comment: p.comment}
		var b reflect.Value
		if base.IsValid() {
			b = base.Field(i)
		}
		inner.structure(v.Field(i), b, e.name, indent+2)
		if strings.TrimSpace(inner.String()) == "" {
			fmt.Fprintf(p, "%s  %s: {}\n", pad, e.name)
			continue
		}
		fmt.Fprintf(p, "%s  %s:\n%s", pad, e.name, inner.String())
	}
}

// scalar prints a value on one line; false for structs that are sections.
func scalar(v reflect.Value) (string, bool) {
	switch x := v.Interface().(type) {
	case time.Duration:
		return strictyaml.FormatDuration(x), true
	case strictyaml.Size:
		return x.String(), true
	case Mode:
		return x.String(), true
	case Network:
		return text(x.String()), true
	case Endpoint:
		return text(x.String()), true
	case encoding.TextMarshaler:
		return "", false
	}
	switch v.Kind() {
	case reflect.String:
		return text(v.String()), true
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10), true
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64), true
	case reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = flow(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]", true
	case reflect.Map:
		var items []string
		for _, k := range v.MapKeys() {
			items = append(items, text(k.String())+": "+flow(v.MapIndex(k)))
		}
		slices.Sort(items)
		return "{" + strings.Join(items, ", ") + "}", true
	}
	return "", false
}

// flow prints a value inside of a list or map.
func flow(v reflect.Value) string {
	if s, ok := scalar(v); ok {
		return s
	}
	var items []string
	for _, f := range reflect.VisibleFields(v.Type()) {
		if key := f.Tag.Get("yaml"); key != "" && !v.FieldByIndex(f.Index).IsZero() {
			items = append(items, key+": "+flow(v.FieldByIndex(f.Index)))
		}
	}
	return "{" + strings.Join(items, ", ") + "}"
}

// text quotes what YAML might read as something else.
func text(s string) string {
	plain := s != "" && (s[0] == '/' || s[0] >= 'A')
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-", r)) {
			plain = false
		}
	}
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n":
		plain = false
	}
	if plain {
		return s
	}
	return quoted(s)
}

// quoted is a double-quoted YAML scalar.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\x%02x", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// withoutPassword takes the password out of a connection string.
func withoutPassword(dsn string) string {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		if _, has := u.User.Password(); has {
			u.User = url.User(u.User.Username())
		}
		q := u.Query()
		if q.Has("password") {
			q.Del("password")
			u.RawQuery = q.Encode()
		}
		return u.String()
	}
	if strings.Contains(dsn, "password") {
		return "(not shown: it bears a password)"
	}
	return dsn
}
