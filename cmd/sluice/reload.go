package main

import (
	"context"
	"os"
	"reflect"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"

	"sluice/internal/config"
	"sluice/internal/mail"
	"sluice/milter"
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
	if err := d.limit(&cfg.Config); err != nil {
		d.retire(fresh)()
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
		d.keepOld(joinErrors(err, d.limit(&old.cfg.Config)))
		return
	}
	limitMemory(&cfg.Config)
	d.logging.set(cfg.Log)
	d.admin.SetUsers(roles(cfg))
	d.metrics.Reloaded(true)
	if keys := needRestart(&d.boot.Config, &cfg.Config); len(keys) > 0 {
		d.log.Warn("changes that need a restart are not in force", "keys", keys)
	}
	d.sayDescriptors(fresh)
	d.sayRules(fresh)
	d.log.Info("configuration reloaded", "config", cfg.Source.String(), "policies", fresh.policies.Len(), "policy_generation", fresh.policies.Generation)
}

// limit puts the configuration's limits in force; messages in flight go on. On an error
// nothing has changed.
func (d *daemon) limit(c *config.Config) error {
	if err := d.spool.SetLimits(spoolLimits(c)); err != nil {
		return err
	}
	d.server.SetLimits(milter.Limits{MaxConnections: c.Milter.MaxConnections, DrainTimeout: c.Milter.DrainTimeout})
	return nil
}

func spoolLimits(c *config.Config) mail.SpoolLimits {
	return mail.SpoolLimits{MemoryLimit: int64(c.Milter.MemoryLimit), MaxBytes: int64(c.Spool.MaxBytes), MaxMessage: int64(c.Milter.MaxMessageSize)}
}

// keepOld says what was wrong with the new configuration.
func (d *daemon) keepOld(err error) {
	d.metrics.Reloaded(false)
	d.mu.Lock()
	d.configError = err.Error()
	d.mu.Unlock()
	d.log.Error("configuration not reloaded: the old one stays in force", "err", err.Error())
}

// needRestart lists the keys that differ and can't be changed in a running daemon: sockets
// are bound and rights given up once, and what lies in the store's folders stays there.
// Their doc in package config says so too.
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
		{"spool.path", old.Spool.Path, fresh.Spool.Path},
		{"http.listen", old.HTTP.Listen, fresh.HTTP.Listen},
		{"http.admin", old.HTTP.Admin, fresh.HTTP.Admin},
		{"store.path", old.Store.Path, fresh.Store.Path},
	} {
		if !reflect.DeepEqual(k.a, k.b) {
			keys = append(keys, k.key)
		}
	}
	return keys
}
