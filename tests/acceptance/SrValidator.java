import com.pixelmed.validate.DicomSRValidator;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import javax.xml.transform.Source;
import javax.xml.transform.Transformer;
import javax.xml.transform.URIResolver;

/**
 * PixelMed's validator of structured reports, which reads the name of a file a line and answers with what it has to say
 * and a line "." after it.
 *
 * <p>Its own program starts anew for each file, and its style sheet reads the tables of codes anew for each item: here
 * they have a name, by which the processor finds that it has them already.
 */
public class SrValidator {
    public static void main(String[] unused) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        Field field = DicomSRValidator.class.getDeclaredField("transformerPass1");
        field.setAccessible(true);
        Transformer rules = (Transformer) field.get(validator);
        URIResolver tables = rules.getURIResolver();
        rules.setURIResolver((href, base) -> {
            Source table = tables.resolve(href, base);
            table.setSystemId(href);
            return table;
        });
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        BufferedReader names = new BufferedReader(new InputStreamReader(System.in, "UTF-8"));
        for (String name = names.readLine(); name != null; name = names.readLine()) {
            out.print(validator.validate(name, false, true, false, true, false));
            out.println(".");
        }
    }
}
