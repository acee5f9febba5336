package web

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
)

// Role is what a user of the admin socket may do.
type Role string

// The roles.
const (
	RoleAll   Role = "all"   // everything
	RoleLearn Role = "learn" // status, and learning
)

// AdminOptions are what NewAdmin needs.
type AdminOptions struct {
	// Users maps a user's name (or number) to a role.
	Users map[string]Role
	// Status makes what /status shows.
	Status func(context.Context) Status
	Log    *slog.Logger
}

// Admin serves the administrators' unix socket.
type Admin struct {
	*Server
	users  atomic.Pointer[map[string]Role]
	status func(context.Context) Status
}

// NewAdmin makes the server. It is to be served on a unix socket: connections of
// any other kind have no peer that could be known, and are refused.
func NewAdmin(o AdminOptions) *Admin {
	a := &Admin{status: o.Status}
	a.SetUsers(o.Users)
	mux := http.NewServeMux()
	mux.Handle("GET /status", a.only(a.serveStatus, RoleAll, RoleLearn))
	a.Server = newServer(mux, o.Log)
	a.http.ConnContext = withPeer
	return a
}

// SetUsers puts other users in force; requests that have begun keep theirs.
func (a *Admin) SetUsers(users map[string]Role) {
	kept := make(map[string]Role, len(users))
	for u, r := range users {
		kept[u] = r
	}
	a.users.Store(&kept)
}

// Serve answers requests until Shutdown; then it returns nil. It owns l.
func (a *Admin) Serve(l net.Listener) error { return a.Server.Serve(peerListener{l}) }

// only lets through peers with one of the roles.
func (a *Admin) only(h http.HandlerFunc, roles ...Role) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := r.Context().Value(peerKey{}).(peer)
		if !ok || !a.may(p, roles) {
			a.log.Warn("admin request refused", "user", p.name, "uid", p.uid, "path", r.URL.Path)
			plain(w, http.StatusForbidden, "this user has no role for that (http.admin_users)")
			return
		}
		h(w, r)
	})
}

func (a *Admin) may(p peer, roles []Role) bool {
	users := *a.users.Load()
	role, ok := users[p.name]
	if p.name == "" || !ok {
		role, ok = users[strconv.FormatUint(uint64(p.uid), 10)]
	}
	for _, r := range roles {
		if ok && role == r {
			return true
		}
	}
	return false
}

func (a *Admin) serveStatus(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(a.status(r.Context()))
	if err != nil {
		a.log.Error("status not written", "err", err)
		plain(w, http.StatusInternalServerError, "status can't be written")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the client is gone if it fails
}
