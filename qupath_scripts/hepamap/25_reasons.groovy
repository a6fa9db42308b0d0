/*
 * Reasons: what went wrong, in plain sentences that say what helps. docs/qupath.md repeats each of them.
 */
import java.net.http.HttpConnectTimeoutException
import java.net.http.HttpResponse
import java.net.http.HttpTimeoutException
import java.nio.channels.UnresolvedAddressException
import java.util.concurrent.TimeoutException
import javax.net.ssl.SSLException

class Reasons {
    static final String WHERE = HepamapSettings.WHERE_ADDRESS
    static final String OWN_DISKS = 'hepamap reads slides from its own disks: the slide must lie in a folder that the server may read ' +
        '(its slide roots). If the server has that folder under another name, write both names into hepamap > Settings…, or ask ' +
        'whoever runs it to map them. A slide that lies only on this computer can be uploaded.'

    static HttpResponse requireSuccess(HttpResponse response, ServerCalls calls) {
        int status = response.statusCode()
        if (status >= 200 && status < 300) return response
        def problem = ServerCalls.parsed(response.body())
        if (problem instanceof Map && problem.code && problem.detail) {
            String said = "${problem.detail} ${problem.cure ?: ''}".trim()
            if (status in [429, 503]) throw new NoAnswer("The server cannot work just now: ${said}", waitMs(response))
            throw new Refused(problemText(problem.code, said, calls.server), status, problem.code)
        }
        if (status in [429, 502, 503, 504]) {
            throw new NoAnswer("Something in front of the server at ${calls.server} answers, but hepamap does not (HTTP ${status}). " +
                'Try again; if it goes on, tell whoever runs the server.', waitMs(response))
        }
        throw new Trouble(refusalText(calls.server, status, response.headers().firstValue('Location').orElse('it does not say which')))
    }

    /** What Retry-After asks for, up to a minute; a date in it is not understood, and nothing is not asked for. */
    static long waitMs(HttpResponse response) {
        String given = response.headers().firstValue('Retry-After').orElse('')
        given ==~ /\d{1,6}/ ? 1000L * Math.min(60, given as int) : 0L
    }

    static String refusalText(String server, int status, String location) {
        if (status in 300..399) return "${server} sends its callers to another address (${location}). Use that one. ${WHERE}"
        if (status in [401, 403, 407]) {
            return "Something in front of the server at ${server} does not let you in (HTTP ${status}). Ask whoever runs it for access."
        }
        if (status < 500) return notHepamap(server)
        "The server at ${server} failed (HTTP ${status}). Try again; if it happens again, tell whoever runs it."
    }

    static String notHepamap(String server) {
        "What answers at ${server} is not a hepamap server. Check the address and port. ${WHERE}"
    }

    static String whyNoAnswer(String server, Throwable failed) {
        List causes = []
        for (Throwable cause = failed; cause != null && causes.size() < 10; cause = cause.getCause()) causes << cause
        Closure has = { Class kind -> causes.any { kind.isInstance(it) } }
        if (has(UnresolvedAddressException)) {
            return "No computer is known by the name in ${server}. Check its spelling, and that this computer is in the network. ${WHERE}"
        }
        // A computer that is there refuses the connection at once; else nothing comes back, or the way to it is unknown.
        if (has(HttpConnectTimeoutException) || has(NoRouteToHostException) || causes.any { it.message =~ /(?i)unreachable/ }) {
            return "The computer of ${server} cannot be reached from here. Check that this computer is in the network (cable, Wi-Fi, VPN), " +
                "that the address is right, and that no firewall is between. ${WHERE}"
        }
        if (has(ConnectException)) {
            return "No server answers at ${server}, though its computer is there. Check that hepamap is running, and that address and " +
                "port are right. ${WHERE}"
        }
        if (has(HttpTimeoutException) || has(TimeoutException)) {
            return "The server at ${server} took too long to answer. It may be busy: try again in a minute."
        }
        String why = causes.last().message ?: causes.last().getClass().getSimpleName()
        if (has(SSLException)) {
            return "The secure connection to ${server} failed (${why}). The server needs a certificate that this computer trusts: the " +
                "PEM file of your organisation's authority can be added in hepamap > Settings…. Or the address should begin with " +
                "http:// instead. ${WHERE}"
        }
        "The connection to ${server} broke (${why}). Check that a hepamap server is at this address. ${WHERE}"
    }

    static String problemText(String code, String said, String server) {
        switch (code) {
            case 'credentials_missing':
                return "The server at ${server} asks for a key, and this computer has none. Ask whoever runs it for one, and put it into " +
                    'hepamap > Settings…, or into the environment variable HEPAMAP_API_KEY.'
            case ['credentials_invalid', 'key_expired', 'token_expired']:
                return "The server at ${server} refuses the key: ${said}\nPut a good key into hepamap > Settings…, or into the environment " +
                    'variable HEPAMAP_API_KEY.'
            case 'scope_missing':
                return "The key is good, but it may not do this: ${said}\nTo detect tumor it needs the scopes read and analyse."
            case ['slide_not_found', 'slide_not_allowed', 'slide_not_readable', 'path_not_mapped', 'outside_roots']:
                return "The server cannot use the file of this slide. It says: ${said}\n${OWN_DISKS}"
            case 'slide_mismatch':
                return "The slide on the server is not the one that is open. The server says: ${said}\nNothing was drawn."
            case ['pixel_size_missing', 'pixel_size_invalid']:
                return "The size of a pixel is not known: ${said}\nIn QuPath, open the Image tab, double-click “Pixel width” and " +
                    '“Pixel height”, enter the µm per pixel that the scanner used, and run this again.'
            case 'analysis_not_found':
                return 'The server has this analysis no more. Run hepamap > Detect tumor again.'
            case 'internal_error':
                return "The server failed: ${said}"
            default:
                return "The server refuses: ${said}"
        }
    }

    static String unforeseen(Throwable error) {
        error.printStackTrace()
        "Something went wrong in the script that nobody foresaw: ${error}. The log (View > Show log) has more; please report it."
    }
}
