package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"sluice/internal/strictyaml"
)

// DefaultFile is where the configuration is looked for if nothing else is said.
const DefaultFile = "/etc/sluice/sluice.yaml"

// EnvFile is the environment variable that names the configuration, EnvLogLevel the one
// that has precedence over log.level.
const (
	EnvFile     = "SLUICE_CONFIG"
	EnvLogLevel = "SLUICE_LOG_LEVEL"
)

// Build says what this build can do.
type Build struct {
	// Scanners are the names of those that are in it.
	Scanners []string
	// Postgres: policies and records can be in PostgreSQL. Reinject: copies can be
	// sent back to the MTA. Sign: mail can be signed.
	Postgres, Reinject, Sign bool
}

// Source says where a configuration comes from.
type Source struct {
	// File is the file's name, "" for the built-in values.
	File string
	// Reason says in words why it is that one: "--config".
	Reason string
}

// String names file and reason for people.
func (s Source) String() string {
	if s.File == "" {
		return "the built-in values (" + s.Reason + ")"
	}
	return s.File + " (" + s.Reason + ")"
}

// Find says which file is the configuration: the one given by the flag, else by the
// environment variable EnvFile, else DefaultFile if it is there, else none: the
// built-in values.
func Find(flag string, getenv func(string) string) Source {
	if flag != "" {
		return Source{flag, "--config"}
	}
	if f := getenv(EnvFile); f != "" {
		return Source{f, "$" + EnvFile}
	}
	if _, err := os.Stat(DefaultFile); errors.Is(err, fs.ErrNotExist) {
		return Source{"", "there is no " + DefaultFile}
	}
	return Source{DefaultFile, "the default"}
}

// Loaded is a configuration that has been read.
type Loaded struct {
	Config
	Source Source
	// PolicyFileWritten: policy.file is in the file, so it has to be there.
	PolicyFileWritten bool

	base Config // the built-in values as seen from the file's folder
	doc  *strictyaml.Document
}

// Problem makes a problem that points at the value of the key at path, for what only shows
// when the configuration is put to use.
func (l *Loaded) Problem(message, remedy string, path ...any) strictyaml.Problem {
	p := l.doc.Problem(message, remedy, path...)
	if p.File == "" {
		p.File = "built-in values"
	}
	return p
}

// Load reads the configuration and checks it, files that it names included. With
// problems, what it returns is only good for looking for more of them. The result
// belongs to the caller.
func Load(source Source, build Build) (*Loaded, strictyaml.Problems) {
	dir := filepath.Dir(DefaultFile)
	var data []byte
	if source.File != "" {
		abs, err := filepath.Abs(source.File)
		if err == nil {
			dir = filepath.Dir(abs)
			data, err = strictyaml.ReadFile(source.File)
		}
		if err != nil {
			return &Loaded{Config: Default(), Source: source, base: Default(), doc: &strictyaml.Document{}}, strictyaml.Problems{{File: source.File, Message: "can't be read: " + reason(err), Remedy: "the file is used because of " + source.Reason}}
		}
	}
	return read(source, dir, data, build)
}

// Override puts what the environment says in the place of what the file says. An empty
// variable says nothing; a wrong one is a problem and changes nothing.
func (l *Loaded) Override(getenv func(string) string) strictyaml.Problems {
	level := getenv(EnvLogLevel)
	if level == "" {
		return nil
	}
	field, _ := reflect.TypeFor[Log]().FieldByName("Level") // it is there
	if remedy, ok := known(level, strings.Fields(field.Tag.Get("words"))); !ok {
		return strictyaml.Problems{{File: "$" + EnvLogLevel, Key: "log.level", Message: notKnown(level), Remedy: remedy}}
	}
	l.Log.Level = level
	return nil
}

func read(source Source, dir string, data []byte, build Build) (*Loaded, strictyaml.Problems) {
	l := &Loaded{Config: Default(), Source: source, base: Default()}
	doc, problems := strictyaml.Decode(source.File, data, &l.Config)
	l.doc = doc
	l.PolicyFileWritten = doc.Has("policy", "file")
	l.Config.resolve(dir)
	l.base.resolve(dir)
	c := &checker{Config: &l.Config, doc: doc, build: build, told: problems}
	c.check()
	problems = append(problems, c.problems...)
	problems.Sort()
	return l, problems
}

// resolve makes relative paths absolute.
func (c *Config) resolve(dir string) {
	endpoint := func(e *Endpoint) {
		if e.Network == "unix" {
			e.Address = absolute(dir, e.Address)
		}
	}
	for i := range c.Milter.Listen {
		endpoint(&c.Milter.Listen[i])
	}
	for i := range c.Scanners.ClamAV.Endpoints {
		endpoint(&c.Scanners.ClamAV.Endpoints[i])
	}
	endpoint(&c.HTTP.Admin)
	endpoint(&c.Reinject.Address)
	for _, p := range []*string{&c.Spool.Path, &c.Policy.File, &c.Store.Path, &c.Reinject.SecretFile} {
		*p = absolute(dir, *p)
	}
	for i := range c.Sign.Keys {
		c.Sign.Keys[i].File = absolute(dir, c.Sign.Keys[i].File)
	}
	for i := range c.Scanners.Rules.Paths {
		c.Scanners.Rules.Paths[i] = absolute(dir, c.Scanners.Rules.Paths[i])
	}
}

// SpoolDir returns the directory of the spool.
func (c *Config) SpoolDir() string {
	if c.Spool.Path != "" {
		return c.Spool.Path
	}
	return filepath.Join(c.Store.Path, "spool")
}

// reason is an error without the file's name, which stands before it anyhow.
func reason(err error) string {
	if pe := (*fs.PathError)(nil); errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}
