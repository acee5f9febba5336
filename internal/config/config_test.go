package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/strictyaml"
)

var build = Build{Scanners: []string{"clamav", "rules"}}

// writeFile writes a file below a new directory and returns its name.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var compareAll = cmp.Options{cmp.AllowUnexported(Config{}), cmp.Comparer(func(a, b Network) bool { return a == b })}

func TestBuiltInValuesServe(t *testing.T) {
	l, problems := Load(Source{}, build)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if got := l.Scanners.On(); !cmp.Equal(got, []string{"clamav", "rules"}) {
		t.Errorf("scanners on: %v", got)
	}
	if l.Policy.File != "/etc/sluice/policy.yaml" || l.PolicyFileWritten || l.SpoolDir() != "/var/lib/sluice/spool" {
		t.Errorf("%q written=%v, %q", l.Policy.File, l.PolicyFileWritten, l.SpoolDir())
	}
	if l.Differences() != "" {
		t.Errorf("differs from itself:\n%s", l.Differences())
	}
}

// TestDefaultsAreThoseOfTheDesign holds the built-in values against the
// configuration page of the design, key by key.
func TestDefaultsAreThoseOfTheDesign(t *testing.T) {
	const page = `
user: sluice
milter:
  listen: ["unix:/run/sluice/milter.sock"]
  socket_mode: 0660
  socket_group: ""
  authserv_id: ""
  authserv_aliases: []
  max_connections: 2000
  max_message_size: 100MiB
  memory_limit: 512MiB
  timeout: 240s
  drain_timeout: 30s
  originating_daemons: [ORIGINATING, MSA]
  originating_networks: [127.0.0.0/8, "::1/128"]
  relay_networks: []
  relay_reject: false
  reinject_daemons: [REINJECT]
spool: { path: "", max_bytes: 4GiB }
http:
  listen: 127.0.0.1:8892
  admin: "unix:/run/sluice/admin.sock"
  admin_users: { root: all }
policy:
  source: file
  file: policy.yaml
  on_unknown: tempfail
  recipient_delimiter: "+"
store:
  driver: sqlite
  path: /var/lib/sluice
  max_bytes: 10GiB
  reserve_bytes: 256MiB
  journal_days: 30
  journal_max_bytes: 20GiB
postgres:
  dsn: postgres:///sluice?host=/run/postgresql
reinject:
  address: ""
  secret_file: ""
sign: { keys: [], arc: false }
scanners:
  clamav: { endpoints: ["unix:/run/clamav/clamd.ctl"], timeout: 60s, workers: 8, required: true }
  rules:  { paths: [/usr/share/spamassassin, /etc/sluice/rules.d], builtin: true, required: true }
  bayes:  { required: false }
  sender: { dns: [], required: false }
  dnsbl:  { zones: [], required: false }
  attachment: { max_depth: 8, max_files: 10000, max_unpacked: 1GiB, required: true }
log: { level: info, format: logfmt }
`
	l, problems := read(Source{File: "x"}, "/etc/sluice", []byte(page), build)
	for _, p := range problems {
		if !strings.Contains(p.Message, "is not in this build") && !strings.Contains(p.Message, "no such file") {
			t.Error(p)
		}
	}
	for _, e := range l.Scanners.all() {
		if !e.scanner.On {
			t.Errorf("%s is off", e.name)
		}
		e.scanner.On = e.name == "clamav" || e.name == "rules"
	}
	if d := cmp.Diff(l.base, l.Config, compareAll); d != "" {
		t.Error(d)
	}
}

func TestPrintedValuesAreReadAgain(t *testing.T) {
	for name, in := range map[string]string{
		"defaults":           "",
		"a few":              "milter: {timeout: 100s, listen: ['inet:127.0.0.1:8891', systemd], socket_mode: 0600}\nlog: {level: debug}\n",
		"one scanner":        "scanners: {rules: {workers: 3}}\n",
		"no scanner":         "scanners: {}\n",
		"odd strings":        "user: \"a: b # \\\" \\\\ \\n\"\nhttp: {admin_users: {'vmail ü': learn, '1': all}, listen: ''}\n",
		"networks":           "milter: {relay_networks: [192.0.2.1, '2001:db8::/32']}\n",
		"scanner by default": "scanners: {clamav: , rules: true}\n",
	} {
		t.Run(name, func(t *testing.T) {
			l, problems := read(Source{File: "x"}, "/d", []byte(in), build)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			for _, printed := range []string{l.YAML(), l.Differences()} {
				again, problems := read(Source{File: "x"}, "/d", []byte(printed), Build{Scanners: build.Scanners})
				if len(problems) > 0 {
					t.Error(problems)
				}
				if d := cmp.Diff(l.Config, again.Config, compareAll); d != "" {
					t.Errorf("%s\n%s", d, printed)
				}
			}
		})
	}
}

func TestPasswordsAreNotPrinted(t *testing.T) {
	for _, dsn := range []string{"postgres://u:hunter2@db/x", "host=db password=hunter2", "postgres://db/x?password=hunter2"} {
		l, _ := read(Source{File: "x"}, "/d", []byte("postgres: {dsn: '"+dsn+"'}\n"), build)
		if strings.Contains(l.YAML()+l.Differences(), "hunter2") {
			t.Errorf("%s is shown", dsn)
		}
	}
}

func TestFind(t *testing.T) {
	env := func(string) string { return "/from/env" }
	none := func(string) string { return "" }
	if s := Find("f", env); s.File != "f" || s.Reason != "--config" {
		t.Error(s)
	}
	if s := Find("", env); s.File != "/from/env" || s.Reason != "$SLUICE_CONFIG" {
		t.Error(s)
	}
	s := Find("", none)
	if _, err := os.Stat(DefaultFile); (err == nil) != (s.File == DefaultFile) {
		t.Error(s)
	}
}

// TestListsHideNothing: beside an element that can't be read, the others are checked, and the
// first is told once.
func TestListsHideNothing(t *testing.T) {
	const text = `milter:
  listen: [5, "inet:127.0.0.1:25", "inet:127.0.0.1:25"]
  authserv_aliases: [true, "a b"]
http: {admin_users: {root: 5, vmail: cook}}
scanners: {rules: {paths: [1, gone.cf]}, dnsbl: {zones: [5, "a b"]}}
sign: {keys: [5, {domain: "a b", selector: s, file: gone.key}]}
`
	_, problems := read(Source{File: "f"}, t.TempDir(), []byte(text), Build{Scanners: []string{"clamav", "rules", "dnsbl"}, Sign: true})
	var at []string
	for _, p := range problems {
		at = append(at, p.Key)
	}
	want := []string{"milter.listen[0]", "milter.listen[2]", "milter.authserv_aliases[0]", "milter.authserv_aliases[1]",
		"http.admin_users.root", "http.admin_users.vmail", "scanners.rules.paths[0]", "scanners.rules.paths[1]",
		"scanners.dnsbl.zones[0]", "scanners.dnsbl.zones[1]", "sign.keys[0]", "sign.keys[1].domain", "sign.keys[1].file"}
	if !cmp.Equal(at, want) {
		t.Errorf("%s\n%v", cmp.Diff(want, at), problems)
	}
}

// TestEnvironment: SLUICE_LOG_LEVEL has precedence over the file, if it is a level.
func TestEnvironment(t *testing.T) {
	load := func(text, level string) (*Loaded, strictyaml.Problems) {
		l, problems := read(Source{File: "f"}, t.TempDir(), []byte(text), build)
		return l, append(problems, l.Override(func(name string) string {
			if name != "SLUICE_LOG_LEVEL" {
				t.Errorf("%s was asked for", name)
			}
			return level
		})...)
	}
	for _, c := range []struct{ name, file, level, want, problem string }{
		{"nothing is said", "", "", "info", ""},
		{"the file alone", "log: {level: warn}", "", "warn", ""},
		{"the environment alone", "", "debug", "debug", ""},
		{"both", "log: {level: warn}", "error", "error", ""},
		{"misspelt", "log: {level: warn}", "debgu", "warn", `$SLUICE_LOG_LEVEL: log.level: "debgu" is not known here; did you mean debug?`},
		{"far from all", "", "loud", "info", `$SLUICE_LOG_LEVEL: log.level: "loud" is not known here; one of: debug, info, warn, error`},
		{"a wrong file is told all the same", "log: {level: loud}", "debug", "debug", `f:1:14: log.level: "loud" is not known here; one of: debug, info, warn, error`},
	} {
		l, problems := load(c.file, c.level)
		if l.Log.Level != c.want || problems.Error() != c.problem {
			t.Errorf("%s: level %s, %v", c.name, l.Log.Level, problems)
		}
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	_, problems := Load(Source{File: "/nonexistent/sluice.yaml", Reason: "--config"}, build)
	if len(problems) != 1 || problems[0].String() != "/nonexistent/sluice.yaml: can't be read: no such file or directory; the file is used because of --config" {
		t.Error(problems)
	}
	if _, problems := Load(Source{File: t.TempDir(), Reason: "--config"}, build); len(problems) != 1 {
		t.Error(problems)
	}
}

func TestRelativePathsStartAtTheFile(t *testing.T) {
	file := writeFile(t, "s.yaml", `
milter: {listen: ["unix:m.sock"]}
http: {admin: "unix:a.sock"}
store: {path: store}
policy: {file: s.yaml}
scanners:
  clamav: {endpoints: ["unix:../clamd"]}
  rules: {paths: [.]}
`)
	l, problems := Load(Source{File: file}, build)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	dir := filepath.Dir(file)
	got := []string{l.Milter.Listen[0].Address, l.HTTP.Admin.Address, l.Store.Path, l.SpoolDir(), l.Policy.File,
		l.Scanners.ClamAV.Endpoints[0].Address, l.Scanners.Rules.Paths[0]}
	want := []string{dir + "/m.sock", dir + "/a.sock", dir + "/store", dir + "/store/spool", file, filepath.Dir(dir) + "/clamd", dir}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !l.PolicyFileWritten {
		t.Error("policy.file is written")
	}
}

func TestScannerSections(t *testing.T) {
	for in, want := range map[string][]string{
		"":                                       {"clamav", "rules"},
		"scanners:":                              nil,
		"scanners: {}":                           nil,
		"scanners: {clamav: false, rules: {}}":   {"rules"},
		"scanners: {clamav: }":                   {"clamav"},
		"scanners: {clamav: true, rules: false}": {"clamav"},
		"scanners: {rules: {builtin: true}}":     {"rules"},
		"scanners: {clamav: {timeout: 5s}, rules:}": {"clamav", "rules"},
	} {
		l, problems := read(Source{File: "x"}, "/d", []byte(in), build)
		if len(problems) > 0 || !cmp.Equal(l.Scanners.On(), want) {
			t.Errorf("%q: %v on, %v; want %v", in, l.Scanners.On(), problems, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"not in the build", "scanners:\n  bayes: {}\n", "f:2:10: scanners.bayes: the scanner bayes is not in this build; remove the section or write bayes: false"},
		{"not in the build, empty", "scanners:\n  sender:\n", "f:2:3: scanners.sender: the scanner sender is not in this build"},
		{"postgres policies", "policy: {source: postgres}", "f:1:18: policy.source: policies in PostgreSQL are not in this build"},
		{"postgres store", "store: {driver: postgres}", "f:1:17: store.driver: records in PostgreSQL are not"},
		{"reinject", "reinject: {address: 'inet:127.0.0.1:10025'}", "f:1:21: reinject.address: re-injection is not in this build"},
		{"sign", "sign: {arc: true}", "f:1:13: sign.arc: ARC is not in this build"},
		{"word", "policy: {source: fiel}", `f:1:18: policy.source: "fiel" is not known here; did you mean file?`},
		{"log level", "log: {level: loud}", `f:1:14: log.level: "loud" is not known here; one of: debug, info, warn, error`},
		{"log format", "log: {format: 5}", "f:1:15: log.format: wants text"},
		{"listen", "milter: {listen: [/run/x.sock]}", `f:1:19: milter.listen[0]: "/run/x.sock" is not a socket; write unix:/path or inet:host:port`},
		{"listen without quotes", "milter: {listen: [inet:127.0.0.1:8891]}", "f:1:19: milter.listen[0]: wants a single value, but this is a map (key: value); put text with a colon in it in quotes"},
		{"listen on nothing", "milter: {listen: []}", "f:1:18: milter.listen: there is nothing to listen on"},
		{"listen twice", "milter: {listen: ['inet::1', 'tcp::1']}", "f:1:30: milter.listen[1]: inet::1 stands twice"},
		{"bad IP", "milter: {listen: ['inet:127.0.0.300:8891']}", `f:1:19: milter.listen[0]: "inet:127.0.0.300:8891" has no valid IP address`},
		{"bad port", "http: {listen: '127.0.0.1:99999'}", `f:1:16: http.listen: "127.0.0.1:99999" has no port between 0 and 65535`},
		{"long path", "milter: {listen: ['unix:/" + strings.Repeat("x", 107) + "']}", "f:1:19: milter.listen[0]: "},
		{"mode", "milter: {socket_mode: 0999}", `f:1:23: milter.socket_mode: "0999" is not a file mode; write it in octal, such as 0660`},
		{"mode without owner", "milter: {socket_mode: 0066}", "f:1:23: milter.socket_mode: 0066 keeps even the owner out"},
		{"group", "milter: {socket_group: no-such-group}", `f:1:24: milter.socket_group: there is no group "no-such-group"`},
		{"network", "milter: {relay_networks: [192.0.2.300/8]}", `f:1:27: milter.relay_networks[0]: "192.0.2.300/8" is not a network`},
		{"host bits", "milter: {relay_networks: [192.0.2.1/24]}", `f:1:27: milter.relay_networks[0]: "192.0.2.1/24" has bits set past its length; did you mean 192.0.2.0/24 or`},
		{"the whole world", "milter: {originating_networks: [0.0.0.0/0]}", "f:1:33: milter.originating_networks[0]: would take the whole world"},
		{"timeout", "milter: {timeout: 300s}", "f:1:19: milter.timeout: has to be under the MTA's own limit of 300s"},
		{"short timeout", "milter: {timeout: 0}", "f:1:19: milter.timeout: is too short"},
		{"size", "milter: {memory_limit: 0}", "f:1:24: milter.memory_limit: is too small"},
		{"no room", "milter: {max_message_size: 8GiB}", "f:1:28: milter.max_message_size: a message of this size fits neither into milter.memory_limit (512MiB) nor into spool.max_bytes (4GiB)"},
		{"connections", "milter: {max_connections: 0}", "f:1:27: milter.max_connections: has to be between 1 and 1000000"},
		{"authserv", "milter: {authserv_id: 'a b'}", "f:1:23: milter.authserv_id: "},
		{"admin over TCP", "http: {admin: 'inet:127.0.0.1:1'}", "f:1:15: http.admin: has to be a unix socket"},
		{"role", "http: {admin_users: {root: everything}}", `f:1:28: http.admin_users.root: "everything" is not known here`},
		{"policy file", "policy: {file: gone.yaml}", "f:1:16: policy.file: /d/gone.yaml: no such file or directory; make the file or mend its name"},
		{"delimiter", "policy: {recipient_delimiter: '@'}", "f:1:31: policy.recipient_delimiter: '@' can't begin"},
		{"store path", "store: {path: ''}", "f:1:15: store.path: is empty"},
		{"secret", "reinject: {secret_file: gone}", "f:1:25: reinject.secret_file: /d/gone: no such file"},
		{"rules path", "scanners: {rules: {paths: [gone.d]}}", "f:1:28: scanners.rules.paths[0]: /d/gone.d: no such file"},
		{"no rules", "scanners: {rules: {paths: [], builtin: false}}", "f:1:19: scanners.rules: there are no rules"},
		{"no clamd", "scanners: {clamav: {endpoints: []}}", "f:1:32: scanners.clamav.endpoints: there is no clamd to ask"},
		{"clamd by systemd", "scanners: {clamav: {endpoints: [systemd]}}", "f:1:33: scanners.clamav.endpoints[0]: is not the socket of a server"},
		{"workers", "scanners: {rules: {workers: -1}}", "f:1:29: scanners.rules.workers: has to be between 0 and 10000"},
		{"scanners as a list", "scanners: [clamav]", "f:1:11: scanners: wants a section for each scanner, but this is a list"},
		{"scanner as text", "scanners: {clamav: yes}", "f:1:20: scanners.clamav: wants keys with values, or false, but this is text"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, problems := read(Source{File: "f"}, "/d", []byte(c.in), build)
			if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), c.want) {
				t.Errorf("got  %v\nwant %s", problems, c.want)
			}
		})
	}
}

func TestSignKeysAreCheckedThough(t *testing.T) {
	_, problems := read(Source{File: "f"}, "/d", []byte("sign:\n  keys:\n    - {domain: 'a b', selector: s, file: gone}\n"), build)
	want := []string{"f:3:5: sign.keys: signing is not", "f:3:16: sign.keys[0].domain: ", "f:3:42: sign.keys[0].file: /d/gone"}
	if len(problems) != len(want) {
		t.Fatal(problems)
	}
	for i := range want {
		if !strings.HasPrefix(problems[i].String(), want[i]) {
			t.Errorf("%v, want %s", problems[i], want[i])
		}
	}
}

func TestEndpoint(t *testing.T) {
	for in, want := range map[string]Endpoint{
		"unix:/run/x": {"unix", "/run/x"}, "local:/run/x": {"unix", "/run/x"}, "unix:x": {"unix", "x"},
		"inet:127.0.0.1:8891": {"tcp", "127.0.0.1:8891"}, "tcp:[::1]:8891": {"tcp", "[::1]:8891"}, "inet6:[::1]:1": {"tcp", "[::1]:1"},
		"inet:8891@localhost": {"tcp", "localhost:8891"}, "inet:8891@::1": {"tcp", "[::1]:8891"}, "inet:8891@[::1]": {"tcp", "[::1]:8891"}, "inet:mx.example.net:8891": {"tcp", "mx.example.net:8891"},
		"systemd": {"systemd", ""}, "": {},
	} {
		var e Endpoint
		if err := e.UnmarshalText([]byte(in)); err != nil || e != want {
			t.Errorf("%q: %v, %v", in, e, err)
		}
	}
	for _, in := range []string{"x", "unix:", "unix://x", "inet:x", "inet:::1:5", "inet:a b:1", "http://x", "systemd:", "systemd:x", "inet:1.2.3.4.5:1", "inet:127.0.0.1:65536", "inet:127.0.0.1:-1"} {
		var e Endpoint
		if err := e.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("%q was read as %v", in, e)
		}
	}
}

func TestDocumentationIsUpToDate(t *testing.T) {
	const file = "../../docs/config.md"
	got, err := os.ReadFile(file)
	if err != nil || string(got) != Markdown() {
		t.Errorf("%s is not what the code says (%v): go run ./internal/config/gen >docs/config.md", file, err)
	}
}

// FuzzConfig: a configuration without mistakes is printed and read again to the
// same effect, and holds what the checks promise.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(DefaultYAML()))
	f.Add([]byte("milter: {listen: [systemd], relay_networks: ['2001:db8::/32']}\nscanners: {clamav: false}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<14 {
			return
		}
		l, problems := read(Source{File: "f"}, "/d", data, build)
		if len(problems) > 0 {
			return
		}
		if l.Milter.Timeout >= 300*time.Second || l.Milter.MemoryLimit <= 0 || len(l.Milter.Listen) == 0 || l.Milter.MaxConnections < 1 {
			t.Fatalf("bad values were taken: %+v", l.Milter)
		}
		for _, s := range l.Scanners.On() {
			if s != "clamav" && s != "rules" {
				t.Fatalf("%s is not in the build", s)
			}
		}
		again, problems := read(Source{File: "f"}, "/d", []byte(l.YAML()), build)
		if len(problems) > 0 {
			t.Fatalf("%v\n%s", problems, l.YAML())
		}
		l.Postgres.DSN, again.Postgres.DSN = "", "" // may lose its password
		if d := cmp.Diff(l.Config, again.Config, compareAll); d != "" {
			t.Fatalf("%s\n%s", d, l.YAML())
		}
	})
}
