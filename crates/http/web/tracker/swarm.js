// One torrent's swarm as the tracker tells it: who holds which piece, and how many hold each.

import { add, countIn, eachRange, fromBase64, has } from "../common/bits.js";

export class Swarm {
  constructor(pieces) {
    this.pieces = pieces;
    this.peers = new Map();
    /** Peers that hold everything, and holders of each piece among the others. */
    this.all = 0;
    this.copies = new Uint16Array(pieces);
  }

  /** A peer as a whole: new, or changed. */
  put(row) {
    const old = this.peers.get(row.id);
    if (old) this.#uncount(old);
    const peer = { ...row, whole: row.have === "all", bits: null };
    delete peer.have;
    if (row.have === "none") peer.bits = new Uint8Array(this.bytes);
    else if (row.have?.bits !== undefined) peer.bits = fromBase64(row.have.bits, this.bytes);
    this.#count(peer, 1);
    this.peers.set(peer.id, peer);
    return peer;
  }

  get bytes() {
    return Math.ceil(this.pieces / 8);
  }

  drop(id) {
    const peer = this.peers.get(id);
    if (!peer) return null;
    this.#uncount(peer);
    this.peers.delete(id);
    return peer;
  }

  /** Pieces newly held; `held(piece)` is called for each that was not. Gives the peer. */
  have({ id, pieces, ...rest }, held) {
    const peer = this.peers.get(id);
    if (!peer) return null;
    for (const key of ["held", "rate", "eta", "source", "sure", "as_of"]) if (rest[key] !== undefined) peer[key] = rest[key];
    peer.silent = 0;
    peer.heard = performance.now();
    if (peer.whole) return peer;
    peer.bits ??= new Uint8Array(this.bytes);
    eachRange(pieces, (first, last) => {
      for (let piece = first; piece <= Math.min(last, this.pieces - 1); piece += 1) {
        if (has(peer.bits, piece)) continue;
        add(peer.bits, piece);
        this.copies[piece] += 1;
        held(piece);
      }
    });
    return peer;
  }

  of(piece) {
    return this.all + this.copies[piece];
  }

  holds(peer, piece) {
    return peer.whole || (peer.bits !== null && has(peer.bits, piece) === 1);
  }

  /** Pieces in `from..to` that a peer holds. */
  heldIn(peer, from, to) {
    if (peer.whole) return to - from;
    return peer.bits ? countIn(peer.bits, from, to) : 0;
  }

  /** Fewest holders of a piece in `from..to`. */
  least(from, to) {
    let least = Infinity;
    for (let piece = from; piece < to; piece += 1) if (this.copies[piece] < least) least = this.copies[piece];
    return this.all + (least === Infinity ? 0 : least);
  }

  /** Pieces with no holder, and with one. */
  atRisk() {
    let [none, one] = [0, 0];
    for (let piece = 0; piece < this.pieces; piece += 1) {
      const n = this.copies[piece] + this.all;
      if (n === 0) none += 1;
      else if (n === 1) one += 1;
    }
    return { none, one };
  }

  /**
   * What keeps a peer from having everything: how many pieces it misses, how many of these nobody holds and
   * how many one peer alone, and how many peers hold something that it misses.
   */
  prospects(peer) {
    const found = { missing: 0, none: 0, one: 0, sources: 0 };
    for (let piece = 0; piece < this.pieces; piece += 1) {
      if (this.holds(peer, piece)) continue;
      const n = this.of(piece);
      found.missing += 1;
      if (n === 0) found.none += 1;
      else if (n === 1) found.one += 1;
    }
    for (const other of this.peers.values()) if (other !== peer && this.#hasFor(other, peer)) found.sources += 1;
    return found;
  }

  #hasFor(other, peer) {
    if (peer.whole || other.whole) return !peer.whole;
    if (!other.bits) return false;
    for (let i = 0; i < other.bits.length; i += 1) if (other.bits[i] & ~(peer.bits?.[i] ?? 0)) return true;
    return false;
  }

  #uncount(peer) {
    this.#count(peer, -1);
  }

  #count(peer, by) {
    if (peer.whole) this.all += by;
    else if (peer.bits) {
      for (let i = 0; i < peer.bits.length; i += 1) {
        if (peer.bits[i] === 0) continue;
        for (let piece = 8 * i; piece < Math.min(this.pieces, 8 * i + 8); piece += 1) if (has(peer.bits, piece)) this.copies[piece] += by;
      }
    }
  }
}
