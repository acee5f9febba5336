package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/internal/envelope"
	"sluice/policy"
	"sluice/scanners"
)

// Settings are all that a reload can change. They are an immutable snapshot: a
// message keeps those it began with. Whoever hands them over does not change
// them afterwards.
type Settings struct {
	// Pool runs the scanners; nil runs none (the reader reads all the same).
	Pool *scanners.Pool
	// Policies returns the policies in force, nil while none were ever loaded:
	// then every message gets 451. It is called once a message.
	Policies func() *policy.Snapshot
	// PolicySource names where policies come from, for metrics: SourceFile or
	// SourcePostgres.
	PolicySource string
	// PolicyStale says for how long the policies have not been known to be current;
	// nil means that they always are.
	PolicyStale func() time.Duration
	Identity    Identity
	Origin      Origin
	// Timeout is the budget from the end of a message to its reply; 0 means
	// DefaultTimeout. Keep it below the MTA's own.
	Timeout time.Duration
	// MaxInFlight bounds the messages that are worked on at once; 0 means
	// DefaultMaxInFlight.
	MaxInFlight int
	// Capabilities say what this build and configuration can carry out.
	Capabilities policy.Capabilities
	// Retired, if set, is called once when other settings are in force and the last
	// message that began with these has been released: to close the pool.
	Retired func()
}

// Defaults of Settings.
const (
	DefaultTimeout     = 240 * time.Second
	DefaultMaxInFlight = 2000
)

// Values of Settings.PolicySource.
const (
	SourceFile     = "file"
	SourcePostgres = "postgres"
)

// Identity says under which names we write and recognise header fields.
type Identity struct {
	// AuthservID is ours (RFC 8601 §2.5); "" means the MTA's macro j, else Host.
	AuthservID string
	// Aliases are further authserv-ids that nobody else may use.
	Aliases []string
	// Host is this machine's name.
	Host string
}

// Origin says how to tell which way a message goes (the design's words:
// originating, relay).
type Origin struct {
	Daemons         []string       // values of {daemon_name} for our own users' mail
	Networks        []netip.Prefix // clients that are our own users
	Relays          []netip.Prefix // our own MXs and relays
	RelayReject     bool           // a relay may get a 5xx
	ReinjectDaemons []string       // values of {daemon_name} for copies from us
}

// snapshot is Settings with the number of messages that use them.
type snapshot struct {
	Settings
	users int // guarded by Gateway.mu
}

// prepared checks s and fills in defaults.
func (s Settings) prepared() (*snapshot, error) {
	if s.Policies == nil {
		return nil, fmt.Errorf("gateway: no source of policies")
	}
	if s.Timeout < 0 || s.MaxInFlight < 0 {
		return nil, fmt.Errorf("gateway: timeout and limits can't be negative")
	}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.MaxInFlight == 0 {
		s.MaxInFlight = DefaultMaxInFlight
	}
	if s.Pool == nil {
		empty, err := scanners.NewPool(scanners.PoolOptions{})
		if err != nil {
			return nil, err
		}
		s.Pool = empty
	}
	if s.PolicySource == "" {
		s.PolicySource = SourceFile
	}
	return &snapshot{Settings: s}, nil
}

// authservIDs are the ids whose Authentication-Results are ours, as authservKey
// gives them.
func (i Identity) authservIDs(env *envelope.Envelope) []string {
	ids := make([]string, 0, 1+len(i.Aliases))
	own := i.AuthservID
	if own == "" {
		own = env.Host
	}
	if own == "" {
		own = i.Host
	}
	for _, id := range append([]string{own}, i.Aliases...) {
		if k := authservKey(id); k != "" && !slices.Contains(ids, k) {
			ids = append(ids, k)
		}
	}
	return ids
}

// host is the name that X-Virus-Scanned bears.
func (i Identity) host(env *envelope.Envelope) string {
	for _, h := range []string{i.AuthservID, env.Host, i.Host} {
		if h != "" {
			return h
		}
	}
	return "localhost"
}

// isRelay reports whether the client is one of our own relays. An unknown address
// is none.
func (o Origin) isRelay(env *envelope.Envelope) bool {
	return !env.Local && contains(o.Relays, env.Client.Addr)
}

// direction says which way the message goes.
func (o Origin) direction(env *envelope.Envelope) envelope.Direction {
	switch {
	case env.Local, env.Login != "":
		return envelope.Outbound
	case o.isRelay(env):
		return envelope.Inbound
	case env.Daemon != "" && slices.Contains(o.Daemons, env.Daemon), contains(o.Networks, env.Client.Addr):
		return envelope.Outbound
	}
	return envelope.Inbound
}

// reinjects reports whether the message came to the daemon that takes our own
// copies.
func (o Origin) reinjects(env *envelope.Envelope) bool {
	return env.Daemon != "" && slices.Contains(o.ReinjectDaemons, env.Daemon)
}

func contains(nets []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsValid() && slices.ContainsFunc(nets, func(p netip.Prefix) bool { return p.Contains(a) })
}
