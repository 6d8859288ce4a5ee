package worker

// State is where a connection is in its life. Only the client's owner changes
// it, and only through Server.setState.
type State uint8

const (
	// StateNew: accepted, nothing received. Next: Head, Body, Queued; Closed
	// when the first byte takes too long.
	StateNew State = iota
	// StateIdle: between two requests. Next: Head, Body, Queued; Closed when
	// the time is over or the peer leaves.
	StateIdle
	// StateHead: part of a request's head is here. Next: Body, Queued; Writing
	// with an error answer.
	StateHead
	// StateBody: the head is here, part of the body is not. Next: Queued;
	// Writing with an error answer.
	StateBody
	// StateQueued: the request is whole and waits in the pool's todo, or a pool
	// goroutine serves it. Next: Idle, Writing, Lingering, Hijacked, Closed.
	StateQueued
	// StateWriting: the answer is made, and the reactor writes what the socket
	// has not taken. Next: Idle, Queued, Lingering, Closed.
	StateWriting
	// StateLingering: our side is shut down; what the peer still sends is read
	// and discarded, so that no reset takes the answer from it. Next: Closed.
	StateLingering
	// StateHijacked: the handler has taken the connection. Final: the slot goes.
	StateHijacked
	// StateClosed: final: the descriptor is closed and the slot goes.
	StateClosed

	numStates = int(StateClosed) + 1
)

var stateNames = [numStates]string{"new", "idle", "head", "body", "queued", "writing", "lingering", "hijacked", "closed"}

func (s State) String() string { return stateNames[s] }
