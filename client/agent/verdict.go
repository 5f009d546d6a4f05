package agent

import (
	"errors"
	"strings"

	"vpnd/client/gate"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
)

// verdict is what an error of the server means for the session.
type verdict int

const (
	fine   verdict = iota
	again          // nobody with a say has answered: try later
	reopen         // the session is gone for no fault of ours: open a new one
	token          // the access token is not accepted: renew it
	ended          // the server has ended it: stay closed
)

// reasonClosed is the server's word for a session that is not there any more.
const reasonClosed = "session_closed"

// judge reads an answer to a heartbeat. why is the server's word for the reason.
func judge(err error) (v verdict, why string) {
	if err == nil {
		return fine, ""
	}
	f := fault.From(err)
	why = f.Reason
	if why == reasonClosed {
		why = whyClosed(f)
	}
	switch sessions.Reason(why) {
	case sessions.Silent, sessions.Expired, sessions.Failed, sessions.LeaseReleased:
		if f.Reason == reasonClosed {
			return reopen, why
		}
	case sessions.ByUser, sessions.LoggedOut, sessions.ByAdmin, sessions.UserSuspended, sessions.UserDeleted,
		sessions.DeviceDeleted, sessions.Replaced, sessions.TokenReuse:
		return ended, why
	}
	switch {
	case f.Reason == reasonClosed, why == "suspended", why == "account_deleted", why == "signed_out", why == "reuse_detected":
		return ended, why
	case gate.Unanswered(err):
		return again, why
	case errors.Is(err, fault.Unauthenticated):
		return token, why
	case errors.Is(err, fault.NotFound):
		return reopen, why
	case errors.Is(err, fault.Denied):
		return ended, why
	}
	return again, why
}

// whyClosed finds the reason that comes with session_closed: in a field, or in
// brackets at the end of the message.
func whyClosed(f *fault.Error) string {
	for _, fd := range f.Fields {
		return fd.Message
	}
	if i := strings.LastIndexByte(f.Message, '('); i >= 0 && strings.HasSuffix(f.Message, ")") {
		return f.Message[i+1 : len(f.Message)-1]
	}
	return reasonClosed
}

// explain says in words why the server has ended the session.
func explain(why string, err error) string {
	switch sessions.Reason(why) {
	case sessions.ByAdmin:
		return "the operator ended the session"
	case sessions.UserSuspended, "suspended":
		return "the account is suspended"
	case sessions.UserDeleted, "account_deleted":
		return "the account was deleted"
	case sessions.DeviceDeleted:
		return "the operator deleted this device"
	case sessions.Replaced:
		return "this device connected from elsewhere, with another key"
	case sessions.TokenReuse, "reuse_detected":
		return "a spent token was used again, perhaps by somebody who copied it"
	case sessions.LoggedOut, "signed_out":
		return "this device was signed out"
	case sessions.ByUser:
		return "this device closed the session"
	}
	return fault.From(err).Message
}

// signInHelps tells whether signing in again is needed to come back.
func signInHelps(why string) bool {
	switch sessions.Reason(why) {
	case sessions.LoggedOut, sessions.TokenReuse, sessions.DeviceDeleted, "signed_out", "reuse_detected":
		return true
	}
	return false
}
