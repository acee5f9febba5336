package config

import (
	"time"

	"sluice/internal/strictyaml"
)

// Scanners is the section scanners.
type Scanners struct {
	ClamAV     ClamAV     `yaml:"clamav" doc:"Viruses, by clamd."`
	Rules      Rules      `yaml:"rules" doc:"Spam, by rules in SpamAssassin's .cf syntax."`
	Bayes      Bayes      `yaml:"bayes" doc:"Spam, by what was learned."`
	Sender     Sender     `yaml:"sender" doc:"SPF, DKIM, DMARC and ARC."`
	DNSBL      DNSBL      `yaml:"dnsbl" doc:"DNS lists."`
	Attachment Attachment `yaml:"attachment" doc:"Names and types of attachments, also inside archives."`
}

// Scanner has the keys that all scanners share.
type Scanner struct {
	// On: the scanner is used. It has no key of its own: a section that is there is
	// on, false is off.
	On       bool
	Required bool          `yaml:"required" doc:"Without a definite answer of this scanner a message is failed. One that isn't required and can't work leaves a remark, a metric and an alert, and mail flows."`
	Timeout  time.Duration `yaml:"timeout" doc:"For one message, waiting included; never past milter.timeout."`
	Workers  int           `yaml:"workers" doc:"Messages looked at at once. 0: one for each processor."`
}

// ClamAV is the section scanners.clamav.
type ClamAV struct {
	Scanner
	Endpoints []Endpoint      `yaml:"endpoints" doc:"Where clamd listens: unix:/path or inet:host:port. With several, one that fails is left out until it is well."`
	MaxSize   strictyaml.Size `yaml:"max_size" doc:"Larger mail isn't handed to clamd but is unchecked. No greater than clamd's MaxFileSize and StreamMaxLength: past MaxFileSize clamd says OK without looking."`
}

// Rules is the section scanners.rules.
type Rules struct {
	Scanner
	Paths   []string `yaml:"paths" doc:"Files and folders of .cf rules. The default ones may be absent; those that are written here may not."`
	Builtin bool     `yaml:"builtin" doc:"Our own rule set; its symbols begin with SL_."`
}

// Bayes is the section scanners.bayes.
type Bayes struct {
	Scanner
}

// Sender is the section scanners.sender.
type Sender struct {
	Scanner
	DNS []HostPort `yaml:"dns" doc:"Resolvers, host:port. Empty: the system's."`
}

// DNSBL is the section scanners.dnsbl.
type DNSBL struct {
	Scanner
	Zones []Zone `yaml:"zones" doc:"Each a name, or: zone, kind, codes, symbol, score."`
}

// Zone is one DNS list.
type Zone struct {
	Zone   string   `yaml:"zone" doc:"The list's domain."`
	Kind   string   `yaml:"kind" doc:"What is asked: client, domain, uri or hash." words:"client domain uri hash"`
	Codes  []string `yaml:"codes" doc:"Answers that count; empty: all in 127.0.0.0/8."`
	Symbol string   `yaml:"symbol" doc:"The finding's name."`
	Score  float64  `yaml:"score" doc:"The finding's score."`
}

// Attachment is the section scanners.attachment.
type Attachment struct {
	Scanner
	MaxDepth    int             `yaml:"max_depth" doc:"Archives inside archives."`
	MaxFiles    int             `yaml:"max_files" doc:"Members of all archives of a message."`
	MaxUnpacked strictyaml.Size `yaml:"max_unpacked" doc:"Bytes unpacked for a message."`
}

func defaultScanners() Scanners {
	common := Scanner{Timeout: 60 * time.Second}
	required := common
	required.Required = true
	s := Scanners{
		ClamAV:     ClamAV{Scanner: required, Endpoints: []Endpoint{{"unix", "/run/clamav/clamd.ctl"}}, MaxSize: 25 << 20},
		Rules:      Rules{Scanner: required, Paths: []string{"/usr/share/spamassassin", "/etc/sluice/rules.d"}, Builtin: true},
		Bayes:      Bayes{Scanner: common},
		Sender:     Sender{Scanner: common, DNS: []HostPort{}},
		DNSBL:      DNSBL{Scanner: common, Zones: []Zone{}},
		Attachment: Attachment{Scanner: required, MaxDepth: 8, MaxFiles: 10000, MaxUnpacked: 1 << 30},
	}
	s.ClamAV.Workers = 8
	s.ClamAV.On, s.Rules.On = true, true
	return s
}

// On returns the names of the scanners that are on, in the order of the
// documentation.
func (s *Scanners) On() []string {
	var names []string
	for _, e := range s.all() {
		if e.scanner.On {
			names = append(names, e.name)
		}
	}
	return names
}

type namedScanner struct {
	name    string
	scanner *Scanner
}

func (s *Scanners) all() []namedScanner {
	return []namedScanner{
		{"clamav", &s.ClamAV.Scanner}, {"rules", &s.Rules.Scanner}, {"bayes", &s.Bayes.Scanner},
		{"sender", &s.Sender.Scanner}, {"dnsbl", &s.DNSBL.Scanner}, {"attachment", &s.Attachment.Scanner},
	}
}

// UnmarshalNode turns off all scanners that the section doesn't list.
func (s *Scanners) UnmarshalNode(n strictyaml.Node) {
	if n.Kind() != strictyaml.Map && n.Kind() != strictyaml.Null {
		n.Fail("wants a section for each scanner, but this is "+n.Kind().String(), "such as: scanners: { clamav: {}, rules: {} }")
		return
	}
	for _, e := range s.all() {
		e.scanner.On = false
	}
	type plain Scanners
	n.Decode((*plain)(s))
}

// section reads one scanner's section: false turns it off, keys (or none, or true)
// turn it on. plain is the scanner's struct without its UnmarshalNode.
func section(n strictyaml.Node, s *Scanner, plain any) {
	switch {
	case n.Kind() == strictyaml.Bool:
		s.On = n.Text() == "true"
	case n.Kind() == strictyaml.Map || n.Kind() == strictyaml.Null:
		s.On = true
		n.Decode(plain)
	default:
		n.Fail("wants keys with values, or false, but this is "+n.Kind().String(), "")
	}
}

// UnmarshalNode reads the section, or false.
func (s *ClamAV) UnmarshalNode(n strictyaml.Node) {
	type plain ClamAV
	section(n, &s.Scanner, (*plain)(s))
}

// UnmarshalNode reads the section, or false.
func (s *Rules) UnmarshalNode(n strictyaml.Node) {
	type plain Rules
	section(n, &s.Scanner, (*plain)(s))
}

// UnmarshalNode reads the section, or false.
func (s *Bayes) UnmarshalNode(n strictyaml.Node) {
	type plain Bayes
	section(n, &s.Scanner, (*plain)(s))
}

// UnmarshalNode reads the section, or false.
func (s *Sender) UnmarshalNode(n strictyaml.Node) {
	type plain Sender
	section(n, &s.Scanner, (*plain)(s))
}

// UnmarshalNode reads the section, or false.
func (s *DNSBL) UnmarshalNode(n strictyaml.Node) {
	type plain DNSBL
	section(n, &s.Scanner, (*plain)(s))
}

// UnmarshalNode reads the section, or false.
func (s *Attachment) UnmarshalNode(n strictyaml.Node) {
	type plain Attachment
	section(n, &s.Scanner, (*plain)(s))
}

// UnmarshalNode reads a name, or a section.
func (z *Zone) UnmarshalNode(n strictyaml.Node) {
	if n.Kind() == strictyaml.Text {
		z.Zone = n.Text()
		return
	}
	type plain Zone
	n.Decode((*plain)(z))
}
