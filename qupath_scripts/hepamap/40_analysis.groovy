/*
 * Analysis: one question to the server, followed until it is answered.
 */
class Analysis {
    static final String PATH = '/api/v1/analyses'
    static long POLL_MS = 500
    static long LOST_CONTACT_MS = 60_000

    final ServerCalls calls
    final Map request
    String id
    Map last
    private Object posted
    // Of this question: asked again, it is the same analysis.
    private final String mark = UUID.randomUUID()

    Analysis(ServerCalls calls, Map request) {
        this.calls = calls
        this.request = request
    }

    Map post() {
        posted = begin()
        note(calls.finish(posted))
    }

    private Object begin() { calls.begin('POST', PATH, request, ServerCalls.ANSWER_S, ['Idempotency-Key': mark]) }

    Map note(response) {
        def answer = ServerCalls.parsed(Reasons.requireSuccess(response, calls).body())
        if (!(answer instanceof Map) || !answer.id || !answer.state) throw new Trouble(Reasons.notHepamap(calls.server))
        id = answer.id
        last = answer
    }

    boolean isDone() { last?.state == 'succeeded' }

    /** Ask until it is done; `check` is called each time and may throw. */
    Map follow(String prefix, Closure check) {
        long lastSeen = System.currentTimeMillis()
        while (true) {
            long pause = POLL_MS
            check.call()
            try {
                if (last == null || !isDone()) note(calls.finish(calls.begin('GET', "${PATH}/${id}", null, ServerCalls.ANSWER_S)))
                lastSeen = System.currentTimeMillis()
                if (isFinished()) return last
                calls.work.tell(prefix + progressText(last), last.progress.total ? last.progress.fraction as double : -1.0d)
            } catch (NoAnswer gone) {
                if (System.currentTimeMillis() - lastSeen > LOST_CONTACT_MS) {
                    throw new Trouble("The server at ${calls.server} stopped answering while it worked (${gone.message}) The analysis " +
                        "${id} may still go on there. Check the network and the server, then run this again.")
                }
                calls.work.tell('Waiting for the server, which does not answer just now')
                pause = Math.max(POLL_MS, gone.waitMs)
            }
            calls.work.rest(pause)
        }
    }

    boolean isFinished() {
        def error = last.error
        if (last.state == 'failed') {
            throw new Refused(Reasons.problemText(error.code, "${error.message} ${error.cure ?: ''}".trim(), calls.server), 200, error.code)
        }
        if (last.state == 'cancelled') {
            throw new Trouble('Somebody cancelled the analysis on the server. Run this again when you want it.')
        }
        isDone()
    }

    static String progressText(Map analysis) {
        if (analysis.state == 'queued') return 'Waiting for other analyses to finish'
        def progress = analysis.progress
        String text = progress.stage.capitalize()
        if (progress.total) text += String.format(Locale.ROOT, ' · %.0f %%', 100 * (progress.fraction as double))
        progress.eta_s == null ? text : text + " · about ${duration(progress.eta_s as double)} left"
    }

    static String duration(double seconds) {
        if (seconds < 90) return "${Math.max(1, Math.round(seconds))} s"
        seconds < 5400 ? "${Math.round(seconds / 60)} min" : String.format(Locale.ROOT, '%.1f h', seconds / 3600)
    }

    /**
     * Tell the server to stop, also where its answer to the question is still on its way, or was lost. True: told, or there was nothing
     * to tell.
     */
    boolean stop() {
        if (posted == null || isDone()) return true
        try {
            // Only the answer says what to cancel.
            if (id == null) note(answerAtLast())
        } catch (Trouble refused) {
            return true
        }
        if (isDone()) return true
        try {
            Reasons.requireSuccess(calls.finish(calls.begin('DELETE', "${PATH}/${id}", null, ServerCalls.CONNECT_S), true), calls)
            return true
        } catch (Refused over) {
            return true  // it has ended meanwhile
        } catch (Trouble untold) {
            return false
        }
    }

    private Object answerAtLast() {
        try {
            return calls.finish(posted, true)
        } catch (NoAnswer lost) {
            return calls.finish(begin(), true)
        }
    }
}
