package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/testkit"
)

type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// serve runs s on l until the test ends.
func serve(t *testing.T, s server, l net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
		defer stop()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestPublic(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "sluice_test_total", Help: "A test."})
	reg.MustRegister(c)
	ready := &Readiness{}
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, NewPublic(PublicOptions{Gatherer: reg, Ready: ready.Ready}), l)
	url := "http://" + l.Addr().String()

	if code, body := get(t, url+"/metrics"); code != 200 || !strings.Contains(body, "sluice_test_total 0") {
		t.Errorf("metrics: %d %s", code, body)
	}
	if code, body := get(t, url+"/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %s", code, body)
	}
	if code, body := get(t, url+"/readyz"); code != 503 || !strings.Contains(body, "starting") {
		t.Errorf("readyz before the listeners are up: %d %s", code, body)
	}
	ready.Serving()
	if code, body := get(t, url+"/readyz"); code != 200 || body != "ready\n" {
		t.Errorf("readyz: %d %s", code, body)
	}
	ready.Draining()
	ready.Serving()
	if code, body := get(t, url+"/readyz"); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readyz while draining: %d %s", code, body)
	}
	for _, path := range []string{"/", "/status", "/debug/pprof/", "/metrics/x"} {
		if code, _ := get(t, url+path); code != 404 {
			t.Errorf("%s: %d", path, code)
		}
	}
	resp, err := http.Post(url+"/healthz", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", resp.StatusCode)
	}
}

func TestReadyNeedsAServerOfEachRequiredScanner(t *testing.T) {
	for _, tc := range []struct {
		name      string
		endpoints []Endpoint
		required  []string
		ready     bool
	}{
		{"all up", []Endpoint{{Scanner: "clamav", Up: true}}, []string{"clamav"}, true},
		{"one of two up", []Endpoint{{Scanner: "clamav"}, {Scanner: "clamav", Up: true}}, []string{"clamav"}, true},
		{"none up", []Endpoint{{Scanner: "clamav"}, {Scanner: "dnsbl", Up: true}}, []string{"clamav"}, false},
		{"not required", []Endpoint{{Scanner: "dnsbl"}}, []string{"clamav"}, true},
		{"has no server", nil, []string{"rules"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := &Readiness{
				Probe:    func(context.Context) []Endpoint { return tc.endpoints },
				Required: func() []string { return tc.required },
			}
			r.Serving()
			if err := r.Ready(t.Context()); (err == nil) != tc.ready {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAdminGoesByThePeer(t *testing.T) {
	me := strconv.Itoa(os.Getuid())
	name := me
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	want := Status{
		Version: "1.0", State: "serving", Connections: 3, InFlight: 2, Started: time.Unix(1_700_000_000, 0).UTC(),
		Policy: PolicyStatus{Source: "file", Generation: 7, Policies: 1},
		Scanners: []Endpoint{{Scanner: "clamav", Address: "unix:/run/clamd", Up: true, Version: "ClamAV 1.4", SignaturesDated: time.Unix(1_690_000_000, 0).UTC()},
			{Scanner: "clamav", Address: "inet:192.0.2.1:3310", Detail: "connection refused"}},
	}
	for _, tc := range []struct {
		name  string
		users map[string]Role
		ok    bool
	}{
		{"by name", map[string]Role{name: RoleAll}, true},
		{"by number", map[string]Role{me: RoleLearn}, true},
		{"nobody", nil, false},
		{"someone else", map[string]Role{"nobody-here": RoleAll}, false},
		{"a role that isn't one", map[string]Role{name: "cook"}, false},
		{"the empty name", map[string]Role{"": RoleAll}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(testkit.TempDir(t), "admin.sock")
			a := NewAdmin(AdminOptions{Users: tc.users, Status: func(context.Context) Status { return want }})
			serve(t, a, listen(t, "unix", path))
			got, err := FetchStatus(t.Context(), path)
			if tc.ok {
				if err != nil || !cmp.Equal(*got, want) {
					t.Errorf("status %+v, error %v", got, err)
				}
				return
			}
			var refused *RefusedError
			if !errors.As(err, &refused) || refused.Code != http.StatusForbidden {
				t.Errorf("error %v", err)
			}
			a.SetUsers(map[string]Role{me: RoleAll})
			if _, err := FetchStatus(t.Context(), path); err != nil {
				t.Errorf("after the users were changed: %v", err)
			}
		})
	}
}

// A connection of another kind than a unix socket has no peer and no role.
func TestAdminRefusesTCP(t *testing.T) {
	a := NewAdmin(AdminOptions{
		Users: map[string]Role{"root": RoleAll, "0": RoleAll, "": RoleAll}, Log: slog.New(slog.DiscardHandler),
		Status: func(context.Context) Status { return Status{Version: "secret"} },
	})
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, a, l)
	if code, body := get(t, "http://"+l.Addr().String()+"/status"); code != 403 || strings.Contains(body, "secret") {
		t.Errorf("%d %s", code, body)
	}
}

func TestFetchStatusWithoutADaemon(t *testing.T) {
	_, err := FetchStatus(t.Context(), filepath.Join(testkit.TempDir(t), "none.sock"))
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("error %v", err)
	}
}

func TestReadyAsksServersNoOftenerThanNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probes := 0
		r := &Readiness{
			Probe:    func(context.Context) []Endpoint { probes++; return []Endpoint{{Scanner: "clamav", Up: probes > 1}} },
			Required: func() []string { return []string{"clamav"} },
		}
		r.Serving()
		for range 10 {
			if r.Ready(t.Context()) == nil {
				t.Error("ready with no server up")
			}
		}
		time.Sleep(probeAge)
		if err := r.Ready(t.Context()); err != nil || probes != 2 {
			t.Errorf("error %v after %d probes", err, probes)
		}
	})
}
