package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"sluice/internal/config"
	"sluice/milter"
)

// listeners are the daemon's sockets, nil where one is off.
type listeners struct {
	milter        []net.Listener
	public, admin net.Listener
}

// openListeners binds all sockets; the admin socket gets the group of the account that the
// daemon will run as, if there is one. On an error none stays open.
func openListeners(cfg *config.Loaded, a *account, log *slog.Logger) (_ *listeners, err error) {
	ls := &listeners{}
	defer func() {
		if err != nil {
			ls.close()
		}
	}()
	group := ""
	if a != nil {
		group = strconv.Itoa(a.gid)
	}
	for _, e := range cfg.Milter.Listen {
		if e.Network == "systemd" {
			passed, err := milter.Activated()
			if err != nil {
				return nil, fail(exitConfig, "milter.listen: sockets from systemd: %w", err)
			}
			if len(passed) == 0 {
				return nil, fail(exitConfig, "milter.listen: systemd passed no socket; start it by its socket unit, or name a socket")
			}
			ls.milter = append(ls.milter, passed...)
			continue
		}
		l, err := listen(e, milter.SocketOptions{Mode: fs.FileMode(cfg.Milter.SocketMode), Group: cfg.Milter.SocketGroup})
		if err != nil {
			return nil, fail(listenCode(err), "milter.listen: %w", err)
		}
		ls.milter = append(ls.milter, l)
	}
	if cfg.HTTP.Listen != "" {
		if ls.public, err = net.Listen("tcp", string(cfg.HTTP.Listen)); err != nil {
			return nil, fail(listenCode(err), "http.listen: %w", err)
		}
	}
	if cfg.HTTP.Admin.Network != "" {
		if ls.admin, err = listen(cfg.HTTP.Admin, milter.SocketOptions{Mode: 0o660, Group: group}); err != nil {
			return nil, fail(listenCode(err), "http.admin: %w", err)
		}
	}
	for _, l := range ls.milter {
		log.Info("listening", "socket", l.Addr().String(), "for", "milter")
	}
	return ls, nil
}

// listen binds one socket; the folder of a unix socket is made if only it is missing.
func listen(e config.Endpoint, o milter.SocketOptions) (net.Listener, error) {
	if e.Network == "unix" {
		if err := os.Mkdir(filepath.Dir(e.Address), 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return milter.Listen(milter.Endpoint{Network: e.Network, Address: e.Address}, o)
}

// listenCode is the exit code for a socket that can't be bound: mostly somebody else has
// it, an old daemon that is about to end perhaps.
func listenCode(err error) int {
	if errors.Is(err, fs.ErrNotExist) {
		return exitConfig
	}
	return codeOf(err, exitTryAgain)
}

// close closes all; closing one twice does no harm.
func (ls *listeners) close() {
	for _, l := range append([]net.Listener{ls.public, ls.admin}, ls.milter...) {
		if l != nil {
			_ = l.Close() // already closed by whoever served it, or never used
		}
	}
}
