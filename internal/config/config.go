package config

import (
	"net/netip"
	"time"

	"sluice/internal/strictyaml"
)

// Config is the whole configuration. The zero value is of no use: begin with
// Default. Plain values: whoever holds a copy may read it from several
// goroutines.
type Config struct {
	User     string   `yaml:"user" doc:"The account to run as when started as root; its groups come with it. Empty: stay as started. Changing it needs a restart."`
	Milter   Milter   `yaml:"milter" doc:"The side that the MTA speaks to."`
	Spool    Spool    `yaml:"spool" doc:"Room for messages that don't fit into memory while they are looked at."`
	HTTP     HTTP     `yaml:"http" doc:"Metrics, health and the operator's socket."`
	Policy   Policy   `yaml:"policy" doc:"Where it is written what becomes of whose mail."`
	Store    Store    `yaml:"store" doc:"Quarantine and journal."`
	Postgres Postgres `yaml:"postgres" doc:"The database, for policy.source and store.driver."`
	Reinject Reinject `yaml:"reinject" doc:"Where copies and released mail go back to the MTA."`
	Sign     Sign     `yaml:"sign" doc:"DKIM and ARC signatures."`
	Scanners Scanners `yaml:"scanners" doc:"Who looks at the mail. Without this key clamav and rules are on, with their built-in values; with it, those that it lists. A scanner whose section is missing or false is off."`
	Log      Log      `yaml:"log" doc:"What is logged, to standard error."`
}

// Milter is the section milter.
type Milter struct {
	Listen              []Endpoint      `yaml:"listen" doc:"Sockets: unix:/path, inet:host:port (tcp: means the same), or systemd for all that systemd hands over. A stale socket is removed. Changing it needs a restart."`
	SocketMode          Mode            `yaml:"socket_mode" doc:"Mode of unix sockets, octal. Changing it needs a restart."`
	SocketGroup         string          `yaml:"socket_group" doc:"Group of unix sockets, such as postfix. Empty: that of the process. Changing it needs a restart."`
	AuthservID          string          `yaml:"authserv_id" doc:"Our name in Authentication-Results. Empty: what the MTA calls itself (macro j), else the host's name. With several nodes set it, the same on all."`
	AuthservAliases     []string        `yaml:"authserv_aliases" doc:"Other names whose Authentication-Results are taken for ours, and so removed from incoming mail."`
	MaxConnections      int             `yaml:"max_connections" doc:"Connections from the MTA at once; past it 451, never a closed socket. A lower one throws nobody out."`
	MaxMessageSize      strictyaml.Size `yaml:"max_message_size" doc:"Past it 552 5.3.4. No smaller than the MTA's own limit."`
	MemoryLimit         strictyaml.Size `yaml:"memory_limit" doc:"For all messages in flight together, reserved as bytes arrive; past it they go to disk. Bounds the program's own memory as well ($GOMEMLIMIT has precedence)."`
	Timeout             time.Duration   `yaml:"timeout" doc:"From the end of a message to the reply. Under the MTA's own limit (Postfix: 300s)."`
	DrainTimeout        time.Duration   `yaml:"drain_timeout" doc:"How long a stop waits for messages in flight."`
	OriginatingDaemons  []string        `yaml:"originating_daemons" doc:"Values of the macro {daemon_name} that mean: mail from our own users."`
	OriginatingNetworks []Network       `yaml:"originating_networks" doc:"Clients whose mail is from our own users."`
	RelayNetworks       []Network       `yaml:"relay_networks" doc:"Our own MXs and relays: their mail is inbound, and they get no 5xx."`
	RelayReject         bool            `yaml:"relay_reject" doc:"Answer relays with 5xx all the same."`
	ReinjectDaemons     []string        `yaml:"reinject_daemons" doc:"Values of {daemon_name} where our own tickets are honoured."`
}

// Spool is the section spool.
type Spool struct {
	Path     string          `yaml:"path" doc:"A directory of its own. Empty: the folder spool below store.path. Changing it needs a restart."`
	MaxBytes strictyaml.Size `yaml:"max_bytes" doc:"451 at MAIL FROM when memory and spool are full."`
}

// HTTP is the section http.
type HTTP struct {
	Listen     HostPort          `yaml:"listen" doc:"host:port of /metrics, /healthz and /readyz; nothing there shows or changes mail. Empty: off. Changing it needs a restart."`
	Admin      Endpoint          `yaml:"admin" doc:"The socket of the command (sluice status), mode 0660, guarded by peer credentials. Empty: off. Changing it needs a restart."`
	AdminUsers map[string]string `yaml:"admin_users" doc:"User (a name or number) → what he may do there: all, or learn."`
}

// Policy is the section policy.
type Policy struct {
	Source             string `yaml:"source" doc:"file, or postgres." words:"file postgres"`
	File               string `yaml:"file" doc:"The policy file. The default one may be absent, then the built-in policy holds for everyone; one that is written here may not."`
	OnUnknown          string `yaml:"on_unknown" doc:"For everyone, while no policy has ever been loaded: tempfail, or default (the built-in policy)." words:"tempfail default"`
	RecipientDelimiter string `yaml:"recipient_delimiter" doc:"The characters that begin an address extension, as Postfix's recipient_delimiter. Empty: there are no extensions."`
}

// Store is the section store.
type Store struct {
	Driver          string          `yaml:"driver" doc:"sqlite, or postgres: what is kept is shipped there." words:"sqlite postgres"`
	Path            string          `yaml:"path" doc:"The local store and outbox, needed with both. Changing it needs a restart."`
	MaxBytes        strictyaml.Size `yaml:"max_bytes" doc:"For the quarantine."`
	ReserveBytes    strictyaml.Size `yaml:"reserve_bytes" doc:"Kept free for the journal."`
	JournalDays     int             `yaml:"journal_days" doc:"How long records are kept."`
	JournalMaxBytes strictyaml.Size `yaml:"journal_max_bytes" doc:"The oldest records go first, with an alert."`
}

// Postgres is the section postgres.
type Postgres struct {
	DSN string `yaml:"dsn" doc:"Connection string. A password in it is not printed."`
}

// Reinject is the section reinject.
type Reinject struct {
	Address    Endpoint `yaml:"address" doc:"inet:host:port of the MTA's port for our own copies. Empty: off."`
	SecretFile string   `yaml:"secret_file" doc:"The key of tickets, the same on all nodes."`
}

// Sign is the section sign.
type Sign struct {
	Keys []SignKey `yaml:"keys" doc:"Each: domain, selector, file."`
	ARC  bool      `yaml:"arc" doc:"Seal forwarded mail (RFC 8617)."`
}

// SignKey is one DKIM key.
type SignKey struct {
	Domain   string `yaml:"domain" doc:"The signing domain."`
	Selector string `yaml:"selector" doc:"The selector in DNS."`
	File     string `yaml:"file" doc:"The private key, PEM."`
}

// Log is the section log.
type Log struct {
	Level  string `yaml:"level" doc:"debug, info, warn or error. $SLUICE_LOG_LEVEL has precedence." words:"debug info warn error"`
	Format string `yaml:"format" doc:"logfmt, or json." words:"logfmt json"`
}

// Default returns the built-in values. They serve as they are.
func Default() Config {
	return Config{
		User: "sluice",
		Milter: Milter{
			Listen:              []Endpoint{{"unix", "/run/sluice/milter.sock"}},
			SocketMode:          0o660,
			AuthservAliases:     []string{},
			MaxConnections:      2000,
			MaxMessageSize:      100 << 20,
			MemoryLimit:         512 << 20,
			Timeout:             240 * time.Second,
			DrainTimeout:        30 * time.Second,
			OriginatingDaemons:  []string{"ORIGINATING", "MSA"},
			OriginatingNetworks: []Network{{netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)}, {netip.PrefixFrom(netip.IPv6Loopback(), 128)}},
			RelayNetworks:       []Network{},
			ReinjectDaemons:     []string{"REINJECT"},
		},
		Spool: Spool{MaxBytes: 4 << 30},
		HTTP: HTTP{
			Listen:     "127.0.0.1:8892",
			Admin:      Endpoint{"unix", "/run/sluice/admin.sock"},
			AdminUsers: map[string]string{"root": "all"},
		},
		Policy: Policy{Source: "file", File: "policy.yaml", OnUnknown: "tempfail", RecipientDelimiter: "+"},
		Store: Store{
			Driver: "sqlite", Path: "/var/lib/sluice", MaxBytes: 10 << 30, ReserveBytes: 256 << 20,
			JournalDays: 30, JournalMaxBytes: 20 << 30,
		},
		Postgres: Postgres{DSN: "postgres:///sluice?host=/run/postgresql"},
		Sign:     Sign{Keys: []SignKey{}},
		Scanners: defaultScanners(),
		Log:      Log{Level: "info", Format: "logfmt"},
	}
}
