package config

import (
	"fmt"
	"os"
	"os/user"
	"reflect"
	"slices"
	"strings"
	"time"

	"sluice/internal/strictyaml"
)

// mtaTimeout is how long Postfix waits for the reply to the end of a message
// (milter_content_timeout).
const mtaTimeout = 300 * time.Second

// checker looks for mistakes that the types alone don't find.
type checker struct {
	*Config
	doc      *strictyaml.Document
	build    Build
	told     strictyaml.Problems // of the types
	problems strictyaml.Problems
}

// wrong adds a problem at the value of path if bad is true, unless the value is one of
// several and could not be read: then it is told.
func (c *checker) wrong(bad bool, message, remedy string, path ...any) {
	if !bad {
		return
	}
	p := c.doc.Problem(message, remedy, path...)
	several := slices.ContainsFunc(path, func(key any) bool { _, index := key.(int); return index || key == "admin_users" })
	if several && slices.ContainsFunc(c.told, func(t strictyaml.Problem) bool { return t.Line == p.Line && t.Column == p.Column }) {
		return
	}
	c.problems = append(c.problems, p)
}

func (c *checker) check() {
	c.words(reflect.ValueOf(*c.Config), nil)
	c.milter()
	c.http()
	c.policy()
	c.store()
	c.delivery()
	c.scanners()
}

// words checks the fields that take one of a few words.
func (c *checker) words(v reflect.Value, path []any) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		at := append(slices.Clone(path), f.Tag.Get("yaml"))
		switch {
		case f.Type.Kind() == reflect.Struct && f.Tag.Get("yaml") != "":
			c.words(v.Field(i), at)
		case f.Tag.Get("words") != "":
			allowed := strings.Fields(f.Tag.Get("words"))
			c.word(v.Field(i).String(), allowed, at...)
		}
	}
}

func (c *checker) word(got string, allowed []string, path ...any) {
	remedy, ok := known(got, allowed)
	c.wrong(!ok, notKnown(got), remedy, path...)
}

// known reports whether a word is allowed; if not, remedy says which are.
func known(got string, allowed []string) (remedy string, ok bool) {
	if slices.Contains(allowed, got) {
		return "", true
	}
	if near := strictyaml.Suggest(got, allowed); near != "" {
		return "did you mean " + near + "?", false
	}
	return "one of: " + strings.Join(allowed, ", "), false
}

func notKnown(got string) string { return fmt.Sprintf("%q is not known here", got) }

func (c *checker) milter() {
	m := &c.Milter
	c.wrong(len(m.Listen) == 0, "there is nothing to listen on", "write at least one socket, such as inet:127.0.0.1:8891", "milter", "listen")
	for i, e := range m.Listen {
		c.wrong(e.Network == "", "is empty", "write a socket or remove the entry", "milter", "listen", i)
		c.wrong(slices.Contains(m.Listen[:i], e) && e.Network != "", e.String()+" stands twice", "remove one of the two", "milter", "listen", i)
	}
	c.wrong(m.SocketMode&0o600 != 0o600, m.SocketMode.String()+" keeps even the owner out", "write it as 0660", "milter", "socket_mode")
	if m.SocketGroup != "" {
		_, err := user.LookupGroup(m.SocketGroup)
		c.wrong(err != nil, fmt.Sprintf("there is no group %q", m.SocketGroup), "the MTA's group is usually called postfix", "milter", "socket_group")
	}
	c.wrong(m.AuthservID != "" && !hostName(m.AuthservID), fmt.Sprintf("%q is not a name as RFC 8601 wants it", m.AuthservID), "use the host's domain name", "milter", "authserv_id")
	for i, a := range m.AuthservAliases {
		c.wrong(!hostName(a), fmt.Sprintf("%q is not a name as RFC 8601 wants it", a), "use a domain name", "milter", "authserv_aliases", i)
	}
	c.wrong(m.MaxConnections < 1 || m.MaxConnections > 1_000_000, "has to be between 1 and 1000000", "", "milter", "max_connections")
	c.wrong(m.MaxMessageSize < 1<<10, "is too small for any mail", "it should be no smaller than the MTA's limit: postconf message_size_limit", "milter", "max_message_size")
	c.wrong(m.MemoryLimit < 1<<20, "is too small to work with", "write at least 1MiB", "milter", "memory_limit")
	c.wrong(m.MemoryLimit > 1<<50, "is more than any machine has", "", "milter", "memory_limit")
	c.wrong(m.MaxMessageSize > m.MemoryLimit && m.MaxMessageSize > c.Spool.MaxBytes,
		fmt.Sprintf("a message of this size fits neither into milter.memory_limit (%s) nor into spool.max_bytes (%s)", m.MemoryLimit, c.Spool.MaxBytes),
		"raise one of them or lower this", "milter", "max_message_size")
	c.wrong(m.Timeout < time.Second, "is too short to look at any mail", "write it as 240s", "milter", "timeout")
	c.wrong(m.Timeout >= mtaTimeout, "has to be under the MTA's own limit of 300s (milter_content_timeout), or its answers come too late", "write it as 240s", "milter", "timeout")
	c.wrong(m.DrainTimeout > time.Hour, "is longer than an hour", "systemd ends the process long before (TimeoutStopSec)", "milter", "drain_timeout")
	for i, n := range m.OriginatingNetworks {
		c.wrong(n.Bits() == 0, "would take the whole world for our own users", "name your own networks", "milter", "originating_networks", i)
	}
	for i, n := range m.RelayNetworks {
		c.wrong(n.Bits() == 0, "would take the whole world for our own relays", "name your own networks", "milter", "relay_networks", i)
	}
	for name, daemons := range map[string][]string{"originating_daemons": m.OriginatingDaemons, "reinject_daemons": m.ReinjectDaemons} {
		for i, d := range daemons {
			c.wrong(d == "", "is empty", "write the name that master.cf gives with -o milter_macro_daemon_name", "milter", name, i)
		}
	}
}

func (c *checker) http() {
	h := &c.HTTP
	c.wrong(h.Admin.Network != "" && h.Admin.Network != "unix", "has to be a unix socket: who may use it is told by peer credentials", "write unix:/run/sluice/admin.sock", "http", "admin")
	for name, role := range h.AdminUsers {
		c.wrong(name == "", "a user without a name", "", "http", "admin_users", name)
		c.word(role, []string{"all", "learn"}, "http", "admin_users", name)
	}
}

func (c *checker) policy() {
	p := &c.Policy
	c.wrong(p.Source == "postgres" && !c.build.Postgres, "policies in PostgreSQL are not in this build", "write source: file", "policy", "source")
	c.wrong(p.File == "" && p.Source == "file", "is empty", "name the policy file, or leave the key out", "policy", "file")
	if c.doc.Has("policy", "file") && p.Source == "file" && p.File != "" {
		c.file(p.File, "policy", "file")
	}
	for _, r := range p.RecipientDelimiter {
		c.wrong(r <= ' ' || r >= 0x7f || r == '@' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z',
			fmt.Sprintf("%q can't begin an extension", r), "use characters such as + or -", "policy", "recipient_delimiter")
	}
}

// file checks that a file that is written in the configuration is there.
func (c *checker) file(name string, path ...any) {
	st, err := os.Stat(name)
	switch {
	case err != nil:
		c.wrong(true, name+": "+reason(err), "make the file or mend its name; relative names start at the folder of "+c.doc.File(), path...)
	case st.IsDir():
		c.wrong(true, name+" is a directory", "name a file", path...)
	}
}

func (c *checker) store() {
	s := &c.Store
	c.wrong(s.Driver == "postgres" && !c.build.Postgres, "records in PostgreSQL are not in this build", "write driver: sqlite", "store", "driver")
	c.wrong(s.Path == "", "is empty", "name a directory, such as /var/lib/sluice", "store", "path")
	c.wrong(s.JournalDays < 1 || s.JournalDays > 36500, "has to be between 1 and 36500", "", "store", "journal_days")
	c.wrong(s.MaxBytes < 1, "leaves no room for any mail", "write a size such as 10GiB", "store", "max_bytes")
	c.wrong(s.JournalMaxBytes < 1, "leaves no room for any record", "write a size such as 20GiB", "store", "journal_max_bytes")
	usesDB := s.Driver == "postgres" || c.Policy.Source == "postgres"
	c.wrong(usesDB && c.Postgres.DSN == "", "is empty", "write a connection string: postgres://user@host/sluice", "postgres", "dsn")
}

func (c *checker) delivery() {
	r := &c.Reinject
	c.wrong(r.Address.Network != "" && r.Address.Network != "tcp", "has to be a port of the MTA", "write inet:127.0.0.1:10025", "reinject", "address")
	c.wrong(r.Address.Network != "" && !c.build.Reinject, "re-injection is not in this build", `remove the address, or write address: ""`, "reinject", "address")
	if r.SecretFile != "" {
		c.file(r.SecretFile, "reinject", "secret_file")
	}
	c.wrong(len(c.Sign.Keys) > 0 && !c.build.Sign, "signing is not in this build", "write keys: []; another milter can sign meanwhile", "sign", "keys")
	c.wrong(c.Sign.ARC && !c.build.Sign, "ARC is not in this build", "write arc: false", "sign", "arc")
	for i, k := range c.Sign.Keys {
		c.wrong(!hostName(k.Domain), fmt.Sprintf("%q is not a domain", k.Domain), "write the signing domain", "sign", "keys", i, "domain")
		c.wrong(!hostName(k.Selector), fmt.Sprintf("%q is not a selector", k.Selector), "write the selector's name", "sign", "keys", i, "selector")
		c.file(k.File, "sign", "keys", i, "file")
	}
}

func (c *checker) scanners() {
	for _, e := range c.Scanners.all() {
		c.wrong(e.scanner.On && !slices.Contains(c.build.Scanners, e.name), "the scanner "+e.name+" is not in this build",
			"remove the section or write "+e.name+": false", "scanners", e.name)
		c.wrong(e.scanner.Timeout < time.Second, "is too short to look at any mail", "write it as 60s", "scanners", e.name, "timeout")
		c.wrong(e.scanner.Workers < 0 || e.scanner.Workers > 10_000, "has to be between 0 and 10000", "", "scanners", e.name, "workers")
	}
	s := &c.Scanners
	c.wrong(len(s.ClamAV.Endpoints) == 0, "there is no clamd to ask", "write an endpoint, such as unix:/run/clamav/clamd.ctl", "scanners", "clamav", "endpoints")
	c.wrong(s.ClamAV.MaxSize < 1, "would hand no mail to clamd", "write clamd's MaxFileSize, such as 25MiB", "scanners", "clamav", "max_size")
	for i, e := range s.ClamAV.Endpoints {
		c.wrong(e.Network != "unix" && e.Network != "tcp", "is not the socket of a server", "write unix:/path or inet:host:port", "scanners", "clamav", "endpoints", i)
		c.wrong(slices.Contains(s.ClamAV.Endpoints[:i], e), e.String()+" stands twice", "remove one of the two", "scanners", "clamav", "endpoints", i)
	}
	if c.doc.Has("scanners", "rules", "paths") {
		for i, p := range s.Rules.Paths {
			if _, err := os.Stat(p); err != nil {
				c.wrong(true, p+": "+reason(err), "make it or mend its name; relative names start at the folder of "+c.doc.File(), "scanners", "rules", "paths", i)
			}
		}
	}
	c.wrong(s.Rules.On && !s.Rules.Builtin && len(s.Rules.Paths) == 0, "there are no rules: builtin is false and paths is empty", "write builtin: true or name some paths", "scanners", "rules")
	for i, z := range s.DNSBL.Zones {
		c.wrong(!hostName(z.Zone), fmt.Sprintf("%q is not a domain", z.Zone), "write the list's domain", "scanners", "dnsbl", "zones", i)
		if z.Kind != "" {
			c.word(z.Kind, []string{"client", "domain", "uri", "hash"}, "scanners", "dnsbl", "zones", i, "kind")
		}
	}
	a := &s.Attachment
	c.wrong(a.MaxDepth < 1, "has to be at least 1", "", "scanners", "attachment", "max_depth")
	c.wrong(a.MaxFiles < 1, "has to be at least 1", "", "scanners", "attachment", "max_files")
	c.wrong(a.MaxUnpacked < 1, "has to be at least 1", "", "scanners", "attachment", "max_unpacked")
}

// hostName reports whether s can be a domain name or a label of one.
func hostName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
