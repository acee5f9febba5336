package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Status is the state of the daemon, as /status shows it and `sluice status`
// prints it. Members are added, never renamed or removed.
type Status struct {
	Version string `json:"version"`
	PID     int    `json:"pid"`
	// Started is when the daemon began; Uptime in seconds.
	Started time.Time `json:"started"`
	Uptime  float64   `json:"uptime_seconds"`
	// State is "starting", "serving" or "draining".
	State string `json:"state"`
	// Config is the file that is in force; ConfigLoaded when it was read, ConfigError
	// what was wrong with a later one, "" if nothing.
	Config       string    `json:"config"`
	ConfigLoaded time.Time `json:"config_loaded"`
	ConfigError  string    `json:"config_error,omitempty"`
	// Connections are those of MTAs; InFlight the messages that are worked on.
	Connections    int   `json:"connections"`
	MaxConnections int   `json:"max_connections"`
	InFlight       int64 `json:"messages_in_flight"`
	// Bytes that messages in flight take, and what they may take.
	Spool SpoolStatus `json:"spool"`
	// Policy says which policies are in force.
	Policy PolicyStatus `json:"policy"`
	// Scanners are the servers of all scanners.
	Scanners []Endpoint `json:"scanners"`
}

// SpoolStatus counts bytes.
type SpoolStatus struct {
	Memory      int64 `json:"memory_bytes"`
	MemoryLimit int64 `json:"memory_limit_bytes"`
	Disk        int64 `json:"disk_bytes"`
	DiskLimit   int64 `json:"disk_limit_bytes"`
}

// PolicyStatus says which policies are in force.
type PolicyStatus struct {
	Source     string  `json:"source"`
	Generation int64   `json:"generation"`
	Policies   int     `json:"policies"`
	Stale      float64 `json:"stale_seconds"`
}

// Endpoint is the health of one server of a scanner.
type Endpoint struct {
	Scanner string `json:"scanner"`
	Address string `json:"address"`
	Up      bool   `json:"up"`
	Version string `json:"version,omitempty"`
	Detail  string `json:"detail,omitempty"`
	// SignaturesDated is when the signatures were made, zero if unknown.
	SignaturesDated time.Time `json:"signatures_dated,omitzero"`
}

// maxStatusBytes bounds what FetchStatus reads.
const maxStatusBytes = 4 << 20

// FetchStatus asks the daemon behind the admin socket at path. An error that is a
// *net.OpError means that no daemon listens there or that the user may not connect.
func FetchStatus(ctx context.Context, path string) (*Status, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxStatusBytes))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &RefusedError{Code: resp.StatusCode, Text: string(body[:min(len(body), 200)])}
	}
	s := &Status{}
	if err := json.Unmarshal(body, s); err != nil {
		return nil, fmt.Errorf("status can't be read: %w", err)
	}
	return s, nil
}

// RefusedError is the daemon's answer other than 200; 403 means that the user has
// no role.
type RefusedError struct {
	Code int
	Text string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("the daemon answered %d: %s", e.Code, e.Text)
}
