package config

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/internal/strictyaml"
)

// Endpoint is a socket: of ours to listen on, or of a server. The zero value means
// none ("" in the file).
type Endpoint struct {
	// Network is "unix", "tcp", or "systemd".
	Network string
	// Address is a path or host:port; "" for the sockets that systemd hands over.
	Address string
}

// UnmarshalText reads unix:/path, inet:host:port, inet:port@host (as Sendmail
// writes it), tcp:host:port, inet6:[host]:port, systemd, or "".
func (e *Endpoint) UnmarshalText(text []byte) error {
	s := string(text)
	bad := func(message string) error {
		return &strictyaml.ValueError{Message: fmt.Sprintf("%q %s", s, message), Remedy: "write unix:/path or inet:host:port"}
	}
	scheme, rest, ok := strings.Cut(s, ":")
	switch {
	case s == "":
		*e = Endpoint{}
		return nil
	case s == "systemd":
		*e = Endpoint{Network: "systemd"}
		return nil
	case !ok:
		return bad("is not a socket")
	case scheme == "unix" || scheme == "local":
		if rest == "" || strings.HasPrefix(rest, "//") || strings.ContainsRune(rest, 0) {
			return bad("names no path")
		}
		// A path that doesn't fit into sockaddr_un can't be bound (108 bytes with
		// its NUL on Linux).
		if len(rest) > 107 {
			return bad("is longer than the 107 bytes that a socket's path may have")
		}
		*e = Endpoint{"unix", rest}
		return nil
	case scheme == "inet" || scheme == "inet6" || scheme == "tcp":
		if port, host, sendmail := strings.Cut(rest, "@"); sendmail {
			rest = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
		if err := checkHostPort(rest); err != nil {
			return bad(err.Error())
		}
		*e = Endpoint{"tcp", rest}
		return nil
	}
	return bad("begins with neither unix: nor inet:")
}

// String returns the socket as main.cf writes it.
func (e Endpoint) String() string {
	switch {
	case e.Network == "tcp":
		return "inet:" + e.Address
	case e.Network == "":
		return ""
	case e.Network == "systemd":
		return e.Network
	}
	return e.Network + ":" + e.Address
}

// HostPort is host:port of TCP, "" for none.
type HostPort string

// UnmarshalText reads host:port or "".
func (h *HostPort) UnmarshalText(text []byte) error {
	s := string(text)
	if s != "" {
		if err := checkHostPort(s); err != nil {
			return &strictyaml.ValueError{Message: fmt.Sprintf("%q %s", s, err), Remedy: "write host:port, such as 127.0.0.1:8892"}
		}
	}
	*h = HostPort(s)
	return nil
}

// checkHostPort reports what keeps s from being host:port; the error completes a
// sentence that begins with s.
func checkHostPort(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && port != "0" {
		return fmt.Errorf("has no port between 0 and 65535")
	}
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return nil
	}
	if strings.Trim(host, "0123456789.") == "" || strings.ContainsRune(host, ':') {
		return fmt.Errorf("has no valid IP address")
	}
	for _, r := range host {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_') {
			return fmt.Errorf("has no valid host name")
		}
	}
	return nil
}

// Network is a range of client addresses.
type Network struct{ netip.Prefix }

// UnmarshalText reads a range in CIDR form, or a single address.
func (n *Network) UnmarshalText(text []byte) error {
	s := string(text)
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		n.Prefix = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return &strictyaml.ValueError{Message: fmt.Sprintf("%q is not a network", s), Remedy: "write it as 192.0.2.0/24 or 2001:db8::/32"}
	}
	if p != p.Masked() {
		return &strictyaml.ValueError{Message: fmt.Sprintf("%q has bits set past its length", s), Remedy: "did you mean " + p.Masked().String() + " or the single address " + p.Addr().String() + "?"}
	}
	n.Prefix = p
	return nil
}

// Prefixes returns the plain ranges.
func Prefixes(ns []Network) []netip.Prefix {
	ps := make([]netip.Prefix, len(ns))
	for i, n := range ns {
		ps[i] = n.Prefix
	}
	return ps
}

// Mode is a file mode, octal in the file.
type Mode uint32

// UnmarshalText reads three or four octal digits.
func (m *Mode) UnmarshalText(text []byte) error {
	s := strings.TrimPrefix(string(text), "0o")
	v, err := strconv.ParseUint(s, 8, 32)
	if err != nil || v > 0o777 || len(s) < 3 {
		return &strictyaml.ValueError{Message: fmt.Sprintf("%q is not a file mode", string(text)), Remedy: "write it in octal, such as 0660"}
	}
	*m = Mode(v)
	return nil
}

// String returns the mode in octal, with a leading 0.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

// absolute returns path as seen from the folder dir; "" stays.
func absolute(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
