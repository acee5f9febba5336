package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	sdaemon "github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"sluice/internal/config"
	"sluice/internal/envelope"
	"sluice/internal/gateway"
	"sluice/internal/mail"
	"sluice/internal/strictyaml"
	"sluice/internal/web"
	"sluice/milter"
)

// daemonOptions are what newDaemon needs beside the configuration.
type daemonOptions struct {
	log           *slog.Logger
	logging       *logging // what log writes to
	reload        func() (*config.Loaded, strictyaml.Problems)
	milterSockets []net.Listener
}

// daemon is everything that runs in `sluice serve`.
type daemon struct {
	daemonOptions
	boot     *config.Loaded // what it was started with: what a reload can't change
	started  time.Time
	registry *prometheus.Registry
	metrics  *gateway.Metrics
	spool    *mail.Spool
	gateway  *gateway.Gateway
	server   *milter.Server
	public   *web.Server
	admin    *web.Admin
	ready    *web.Readiness

	mu          sync.RWMutex // guards what follows; held while a pool is asked, so that it isn't closed meanwhile
	current     *parts
	loaded      time.Time
	configError string
	generation  int64
}

// milterGateway gives the gateway the form that the milter wants.
type milterGateway struct{ *gateway.Gateway }

func (g milterGateway) Start(ctx context.Context, env *envelope.Envelope, msg *mail.Message) milter.Run {
	return g.Gateway.Start(ctx, env, msg)
}

func newDaemon(cfg *config.Loaded, o daemonOptions) (_ *daemon, err error) {
	now := time.Now()
	d := &daemon{daemonOptions: o, boot: cfg, started: now, loaded: now, generation: 1, registry: prometheus.NewRegistry()}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if d.metrics, err = gateway.NewMetrics(d.registry, gateway.Build{Version: version, Revision: revision()}); err != nil {
		return nil, fail(exitInternal, "metrics: %w", err)
	}
	m := &cfg.Milter
	room := spoolLimits(&cfg.Config)
	d.spool, err = mail.NewSpool(mail.SpoolOptions{Dir: cfg.SpoolDir(), MemoryLimit: room.MemoryLimit, MaxBytes: room.MaxBytes, MaxMessage: room.MaxMessage})
	if err != nil {
		return nil, fail(codeOf(err, exitConfig), "%w", err)
	}
	defer func() {
		if err != nil {
			err = joinErrors(err, d.close())
		}
	}()
	if d.current, err = assemble(cfg, d.wiring()); err != nil {
		return nil, err
	}
	if d.gateway, err = gateway.New(gateway.Options{Spool: d.spool, Metrics: d.metrics, Log: d.log}, d.current.settings(d.retire(d.current))); err != nil {
		return nil, fail(exitInternal, "%w", err)
	}
	d.metrics.Reloaded(true)
	d.server, err = milter.New(milter.Options{
		Gateway: milterGateway{d.gateway}, Log: d.log, Metrics: milter.NewMetrics(d.registry),
		Panicked:       func() { d.metrics.Panicked("milter") },
		MaxConnections: m.MaxConnections, DrainTimeout: m.DrainTimeout,
	})
	if err != nil {
		return nil, fail(exitInternal, "%w", err)
	}
	d.ready = &web.Readiness{Probe: d.probe, Required: d.required}
	d.public = web.NewPublic(web.PublicOptions{Gatherer: d.registry, Ready: d.ready.Ready, Log: d.log})
	d.admin = web.NewAdmin(web.AdminOptions{Users: roles(cfg), Status: d.status, Log: d.log})
	return d, nil
}

func (d *daemon) wiring() wiring {
	return wiring{log: d.log, registry: d.registry, panicked: d.metrics.Panicked, generation: d.generation}
}

// retire closes the pool of parts that nobody uses any more.
func (d *daemon) retire(p *parts) func() {
	return func() {
		if err := p.pool.Close(); err != nil {
			d.log.Warn("old scanners did not close well", "err", err)
		}
	}
}

// close ends what newDaemon began.
func (d *daemon) close() error {
	var errs []error
	if d.current != nil {
		errs = append(errs, d.current.pool.Close())
	}
	if d.spool != nil {
		errs = append(errs, d.spool.Close())
	}
	return joinErrors(errs...)
}

// run serves until ctx ends, then drains. hup asks for a reload.
func (d *daemon) run(ctx context.Context, hup <-chan os.Signal, ls *listeners) (err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	d.sayOnce()
	var wg sync.WaitGroup
	serve := func(what string, l net.Listener, f func(net.Listener) error) {
		if l == nil {
			return
		}
		wg.Go(func() {
			if err := f(l); err != nil {
				end(fail(exitIO, "%s: %w", what, err))
			}
		})
	}
	serve("http.listen", ls.public, d.public.Serve)
	serve("http.admin", ls.admin, d.admin.Serve)
	wg.Go(func() { d.reloads(ctx, hup) })
	wg.Go(func() { feedWatchdog(ctx, d.log) })
	draining := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(draining)
		d.ready.Draining()
		notify(d.log, sdaemon.SdNotifyStopping)
		d.log.Info("stopping: messages in flight are answered first", "messages", d.gateway.InFlight())
	})

	d.ready.Serving()
	notify(d.log, sdaemon.SdNotifyReady)
	err = d.server.Serve(ctx, ls.milter...)
	end(nil)
	<-draining
	// Health and metrics stay until the last message is answered.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := joinErrors(d.public.Shutdown(stop), d.admin.Shutdown(stop)); err != nil {
		d.log.Warn("web server was cut off", "err", err)
	}
	wg.Wait()
	// The cause is a signal's, or the error of a server that could not go on.
	if e := (*exitError)(nil); err == nil && errors.As(context.Cause(ctx), &e) {
		err = e
	}
	err = joinErrors(err, d.close())
	d.log.Info("stopped", "uptime", time.Since(d.started).Round(time.Second).String())
	return err
}

// sayOnce tells at the start what is in force and what this version doesn't do.
func (d *daemon) sayOnce() {
	c := d.current
	d.log.Info("sluice is up", "version", version, "config", c.cfg.Source.String(), "policies", c.policies.Len(), "scanners", c.cfg.Scanners.On())
	d.log.Warn("this version has no store: copies beside a reject or discard are not kept, and failed_after never ends: failed mail is deferred until its sender gives up")
	if unused := c.policies.Unused(built()); len(unused) > 0 {
		d.log.Warn("policy fields without effect in this version", "fields", unused)
	}
	d.sayDescriptors(c)
	d.sayRules(c)
	if len(c.cfg.Scanners.On()) == 0 {
		d.log.Warn("no scanner is on: every message is clean")
	}
}

func (d *daemon) sayDescriptors(c *parts) {
	if short := descriptorsShort(&c.cfg.Config); short != "" {
		d.log.Warn("too few file descriptors", "err", short)
	}
}

func (d *daemon) sayRules(c *parts) {
	mistakes, skipped := rulesSummary(c.rules)
	if mistakes > 0 {
		d.log.Warn("rules with mistakes are out; sluice check names them", "mistakes", mistakes)
	}
	if skipped > 0 {
		d.log.Info("rules that this version can't run are out; sluice check counts them", "rules", skipped)
	}
}

// roles turns the configuration's words into those of the web server.
func roles(cfg *config.Loaded) map[string]web.Role {
	users := make(map[string]web.Role, len(cfg.HTTP.AdminUsers))
	for u, r := range cfg.HTTP.AdminUsers {
		users[u] = web.Role(r)
	}
	return users
}

// probe asks the scanners' servers how they are.
func (d *daemon) probe(ctx context.Context) []web.Endpoint {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := []web.Endpoint{}
	for _, e := range d.current.pool.Probe(ctx) {
		all = append(all, web.Endpoint{Scanner: e.Scanner, Address: e.Address, Up: e.Up, Version: e.Version, Detail: e.Detail, SignaturesDated: e.SignaturesDated})
	}
	return all
}

// required names the scanners without whom mail is failed.
func (d *daemon) required() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return requiredScanners(d.current.cfg)
}

func requiredScanners(cfg *config.Loaded) []string {
	var names []string
	if c := cfg.Scanners.ClamAV; c.On && c.Required {
		names = append(names, "clamav")
	}
	if c := cfg.Scanners.Rules; c.On && c.Required {
		names = append(names, "rules")
	}
	return names
}

// status is what `sluice status` shows.
func (d *daemon) status(ctx context.Context) web.Status {
	endpoints := d.probe(ctx)
	memory, disk := d.spool.Used()
	d.mu.RLock()
	defer d.mu.RUnlock()
	c := d.current
	return web.Status{
		Version: version, PID: os.Getpid(), Started: d.started, Uptime: time.Since(d.started).Seconds(), State: d.ready.State(),
		Config: c.cfg.Source.String(), ConfigLoaded: d.loaded, ConfigError: d.configError,
		Connections: d.server.Connections(), MaxConnections: c.cfg.Milter.MaxConnections, InFlight: d.gateway.InFlight(),
		Spool: web.SpoolStatus{Memory: memory, MemoryLimit: int64(c.cfg.Milter.MemoryLimit), Disk: disk, DiskLimit: int64(c.cfg.Spool.MaxBytes)},
		Policy: web.PolicyStatus{
			Source: fmt.Sprintf("%s %s", c.cfg.Policy.Source, c.cfg.Policy.File), Generation: c.policies.Generation, Policies: c.policies.Len(),
		},
		Scanners: endpoints,
	}
}
