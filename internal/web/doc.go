// Package web serves HTTP: metrics and health on a public listener, the state of
// the daemon on an administrators' unix socket.
//
// Invariants:
//   - The public listener shows nothing of any mail and changes nothing.
//   - The admin socket serves only connections whose peer the kernel names
//     (SO_PEERCRED) and the configuration gives a role; everyone else gets 403.
//   - Requests are bounded in size and time, responses in time.
package web
