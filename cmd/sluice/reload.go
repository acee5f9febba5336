package main

import (
	"context"
	"os"
	"reflect"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"

	"sluice/internal/config"
)

// reloads reads everything anew for each signal, until ctx ends. Signals that
// come while one is at work make one more reload, not many.
func (d *daemon) reloads(ctx context.Context, hup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			notify(d.log, reloading())
			d.reloadOnce()
			notify(d.log, sdaemon.SdNotifyReady)
		}
	}
}

// reloadOnce puts the configuration, policies and rules that are on disk in force,
// or none of them.
func (d *daemon) reloadOnce() {
	cfg, problems := d.reload()
	if len(problems) > 0 {
		d.keepOld(problems)
		return
	}
	d.mu.RLock()
	old, w := d.current, d.wiring()
	d.mu.RUnlock()
	w.generation++
	fresh, err := assemble(cfg, w)
	if err != nil {
		d.keepOld(err)
		return
	}
	d.mu.Lock()
	d.current, d.loaded, d.configError, d.generation = fresh, time.Now(), "", w.generation
	d.mu.Unlock()
	// From here on nobody asks the old pool but messages that began with it; the last of them
	// closes it.
	if err := d.gateway.Reload(fresh.settings(d.retire(fresh))); err != nil {
		d.mu.Lock()
		d.current = old
		d.mu.Unlock()
		d.retire(fresh)()
		d.keepOld(err)
		return
	}
	d.level.Set(logLevel(cfg.Log.Level))
	d.admin.SetUsers(roles(cfg))
	d.metrics.Reloaded(true)
	if keys := needRestart(&d.boot.Config, &cfg.Config); len(keys) > 0 {
		d.log.Warn("changes that need a restart are not in force", "keys", keys)
	}
	d.sayRules(fresh)
	d.log.Info("configuration reloaded", "config", cfg.Source.String(), "policies", fresh.policies.Len(), "policy_generation", fresh.policies.Generation)
}

// keepOld says what was wrong with the new configuration.
func (d *daemon) keepOld(err error) {
	d.metrics.Reloaded(false)
	d.mu.Lock()
	d.configError = err.Error()
	d.mu.Unlock()
	d.log.Error("configuration not reloaded: the old one stays in force", "err", err.Error())
}

// needRestart lists the keys that differ and can't be changed in a running daemon.
func needRestart(old, fresh *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key  string
		a, b any
	}{
		{"user", old.User, fresh.User},
		{"milter.listen", old.Milter.Listen, fresh.Milter.Listen},
		{"milter.socket_mode", old.Milter.SocketMode, fresh.Milter.SocketMode},
		{"milter.socket_group", old.Milter.SocketGroup, fresh.Milter.SocketGroup},
		{"milter.max_connections", old.Milter.MaxConnections, fresh.Milter.MaxConnections},
		{"milter.max_message_size", old.Milter.MaxMessageSize, fresh.Milter.MaxMessageSize},
		{"milter.memory_limit", old.Milter.MemoryLimit, fresh.Milter.MemoryLimit},
		{"milter.drain_timeout", old.Milter.DrainTimeout, fresh.Milter.DrainTimeout},
		{"spool", old.Spool, fresh.Spool},
		{"http.listen", old.HTTP.Listen, fresh.HTTP.Listen},
		{"http.admin", old.HTTP.Admin, fresh.HTTP.Admin},
		{"store.path", old.Store.Path, fresh.Store.Path},
		{"log.format", old.Log.Format, fresh.Log.Format},
	} {
		if !reflect.DeepEqual(k.a, k.b) {
			keys = append(keys, k.key)
		}
	}
	return keys
}
